// SPDX-License-Identifier: Apache-2.0
//
// One request of the control API: its body, its answer, and those requests that have a file of
// their own. Control thread only.
#ifndef FAULTLINE_CONTROL_CONTROL_REQUEST_H
#define FAULTLINE_CONTROL_CONTROL_REQUEST_H

#include <jansson.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

struct fl_acceptor;

enum { FL_CONTROL_BODY_MAX = 65536 };

// What a client has sent so far.
struct fl_request {
    char *body;
    size_t used;
    size_t sent; // with what was not taken
    bool too_long;
    bool lacks_memory;
};

// The answer; the text comes from malloc and is taken. NULL (no memory): MHD_NO.
enum MHD_Result fl_control_send(struct MHD_Connection *client, unsigned status, const char *type,
                                char *text);
// 200, and *shared is the answer, the caller's, for others; NULL: there are none.
enum MHD_Result fl_control_send_shared(struct MHD_Connection *client, const char *type, char *text,
                                       struct MHD_Response **shared);
// Likewise; the object is taken.
enum MHD_Result fl_control_send_json(struct MHD_Connection *client, unsigned status,
                                     json_t *object);
// One sentence, which names what it is about.
enum MHD_Result fl_control_send_error(struct MHD_Connection *client, unsigned status,
                                      const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// 405, with the methods that the path takes in the header Allow.
enum MHD_Result fl_control_send_not_allowed(struct MHD_Connection *client, const char *url,
                                            const char *allowed);
// 413: its body is longer than what is taken.
enum MHD_Result fl_control_send_too_long(struct MHD_Connection *client);

// The body as JSON, the caller's; NULL after an error was sent. No body is an empty object.
json_t *fl_control_read_body(struct MHD_Connection *client, const struct fl_request *request,
                             enum MHD_Result *ret_result);

// A body that is no more than {"image": NAME}: the name is good for as long as the body is. NULL
// after an error was sent.
json_t *fl_control_read_image(struct MHD_Connection *client, const struct fl_request *request,
                              const char **ret_image, enum MHD_Result *ret_result);

// --- errors that many requests have; they return false after one was sent ---

// The name is one that an image could have.
bool fl_control_check_name(struct MHD_Connection *client, const char *image,
                           enum MHD_Result *ret_result);
// VMs are taken, and the store has an image of this name.
bool fl_control_check_image(const struct fl_acceptor *acceptor, struct MHD_Connection *client,
                            const char *image, enum MHD_Result *ret_result);

// --- what there is (routes.c), each in control_*.c ---

struct fl_visit;

enum MHD_Result fl_control_get_status(const struct fl_visit *visit, struct MHD_Connection *client,
                                      const struct fl_request *request);
enum MHD_Result fl_control_get_metrics(const struct fl_visit *visit, struct MHD_Connection *client,
                                       const struct fl_request *request);
enum MHD_Result fl_control_get_healthz(const struct fl_visit *visit, struct MHD_Connection *client,
                                       const struct fl_request *request);
enum MHD_Result fl_control_get_readyz(const struct fl_visit *visit, struct MHD_Connection *client,
                                      const struct fl_request *request);
enum MHD_Result fl_control_post_drain(const struct fl_visit *visit, struct MHD_Connection *client,
                                      const struct fl_request *request);
enum MHD_Result fl_control_post_upgrade(const struct fl_visit *visit, struct MHD_Connection *client,
                                        const struct fl_request *request);
enum MHD_Result fl_control_post_huge(const struct fl_visit *visit, struct MHD_Connection *client,
                                     const struct fl_request *request);
enum MHD_Result fl_control_get_listeners(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request);
enum MHD_Result fl_control_post_listener(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request);
enum MHD_Result fl_control_delete_listener(const struct fl_visit *visit,
                                           struct MHD_Connection *client,
                                           const struct fl_request *request);
enum MHD_Result fl_control_get_recordings(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request);
enum MHD_Result fl_control_post_recording(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request);
enum MHD_Result fl_control_delete_recording(const struct fl_visit *visit,
                                            struct MHD_Connection *client,
                                            const struct fl_request *request);
enum MHD_Result fl_control_get_histories(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request);
enum MHD_Result fl_control_post_history(const struct fl_visit *visit, struct MHD_Connection *client,
                                        const struct fl_request *request);
enum MHD_Result fl_control_delete_history(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request);
enum MHD_Result fl_control_get_captures(const struct fl_visit *visit, struct MHD_Connection *client,
                                        const struct fl_request *request);
enum MHD_Result fl_control_delete_capture(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request);
enum MHD_Result fl_control_get_checkpoints(const struct fl_visit *visit,
                                           struct MHD_Connection *client,
                                           const struct fl_request *request);
enum MHD_Result fl_control_post_checkpoint(const struct fl_visit *visit,
                                           struct MHD_Connection *client,
                                           const struct fl_request *request);
enum MHD_Result fl_control_delete_checkpoint(const struct fl_visit *visit,
                                             struct MHD_Connection *client,
                                             const struct fl_request *request);
enum MHD_Result fl_control_post_paused(const struct fl_visit *visit, struct MHD_Connection *client,
                                       const struct fl_request *request);
enum MHD_Result fl_control_get_templates(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request);
enum MHD_Result fl_control_post_template(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request);
enum MHD_Result fl_control_delete_template(const struct fl_visit *visit,
                                           struct MHD_Connection *client,
                                           const struct fl_request *request);

#endif
