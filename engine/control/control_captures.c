// SPDX-License-Identifier: Apache-2.0
//
// /v1/captures: of which VMs memory is being captured, or is kept for the next capture, and enough
// of it. A capture is asked for elsewhere (accept/captures.h).
#include "engine/accept/acceptor.h"
#include "engine/accept/captures.h"
#include "engine/base/clock.h"
#include "engine/control/capture_name.h"
#include "engine/control/control_request.h"
#include "engine/control/routes.h"
#include "engine/worker/engine.h"

static json_int_t number(const _Atomic uint64_t *counter)
{
    return (json_int_t)atomic_load(counter);
}

static json_t *describe(const struct fl_capture_session *session)
{
    const struct fl_capture_board *board = session->capture->board;
    json_int_t by_fault = number(&board->by_fault);
    return json_pack("{s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "vm", (json_int_t)session->vm,
                     "image", session->image, "phase", fl_capture_phase_name(session), "to_copy",
                     number(&board->to_copy), "copied", by_fault + number(&board->by_sweep),
                     "by_fault", by_fault, "write_faults", number(&board->write_faults), "pause_us",
                     number(&board->freeze_ns) / (json_int_t)FL_NS_PER_US, "ms",
                     (json_int_t)((fl_now() - session->since_ns) / FL_NS_PER_MS));
}

static void add_capture(void *list, const struct fl_capture_session *session)
{
    json_array_append_new(list, describe(session));
}

enum MHD_Result fl_control_get_captures(const struct fl_visit *visit, struct MHD_Connection *client,
                                        const struct fl_request *request)
{
    (void)request;
    json_t *list = json_array();
    fl_captures_each(visit->acceptor->engine->captures, add_capture, list);
    return fl_control_send_json(client, MHD_HTTP_OK, json_pack("{s:o}", "captures", list));
}

static enum MHD_Result cancel_capture(struct fl_captures *captures, struct MHD_Connection *client,
                                      uint64_t vm)
{
    const struct fl_capture_session *session = fl_captures_find(captures, vm);
    // It may be gone once it is cancelled.
    json_t *answer = session ? describe(session)
                             : json_pack("{s:I, s:s}", "vm", (json_int_t)vm, "phase",
                                         fl_capture_phase_name(NULL));
    if (fl_captures_cancel(captures, vm))
        return fl_control_send_json(client, MHD_HTTP_OK, answer);
    json_decref(answer);
    return fl_control_send_error(client, MHD_HTTP_NOT_FOUND, "there is no VM %llu that is served",
                                 (unsigned long long)vm);
}

enum MHD_Result fl_control_delete_capture(const struct fl_visit *visit,
                                          struct MHD_Connection *client,
                                          const struct fl_request *request)
{
    json_int_t vm = -1;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (json_unpack(body, "{s:I !}", "vm", &vm) != 0 || vm < 0)
        result =
            fl_control_send_error(client, MHD_HTTP_BAD_REQUEST, "the body must be {\"vm\": N}");
    else
        result = cancel_capture(visit->acceptor->engine->captures, client, (uint64_t)vm);
    json_decref(body);
    return result;
}
