// SPDX-License-Identifier: Apache-2.0
//
// /v1/templates: which there are, one more, one less.
#include "engine/accept/acceptor.h"
#include "engine/control/control_request.h"
#include "engine/control/routes.h"
#include "engine/template/templates.h"
#include "engine/worker/engine.h"

enum MHD_Result fl_control_get_templates(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    (void)request;
    return fl_control_send_json(client, MHD_HTTP_OK,
                                fl_templates_json(acceptor->engine->templates));
}

static enum MHD_Result ask_template(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                    const char *image, bool complete)
{
    enum MHD_Result result = MHD_NO;
    if (!fl_control_check_name(client, image, &result) ||
        !fl_control_check_image(acceptor, client, image, &result))
        return result;
    if (fl_templates_ask(acceptor->engine->templates, image, complete) != 0)
        return fl_control_send_error(client, MHD_HTTP_INTERNAL_SERVER_ERROR,
                                     "there is no memory for the template of image '%s'", image);
    return fl_control_send_json(client, MHD_HTTP_ACCEPTED,
                                fl_templates_json(acceptor->engine->templates));
}

enum MHD_Result fl_control_post_template(const struct fl_visit *visit,
                                         struct MHD_Connection *client,
                                         const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    const char *image = NULL;
    int complete = 0;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (json_unpack(body, "{s:s, s?:b !}", "image", &image, "complete", &complete) != 0)
        result = fl_control_send_error(client, MHD_HTTP_BAD_REQUEST,
                                       "the body must be {\"image\": NAME, \"complete\": BOOLEAN}");
    else
        result = ask_template(acceptor, client, image, complete != 0);
    json_decref(body);
    return result;
}

static enum MHD_Result drop_template(struct fl_acceptor *acceptor, struct MHD_Connection *client,
                                     const char *image)
{
    if (!fl_templates_unpin(acceptor->engine->templates, image))
        return fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                     "no template of image '%s' was asked for", image);
    return fl_control_send_json(client, MHD_HTTP_OK,
                                fl_templates_json(acceptor->engine->templates));
}

enum MHD_Result fl_control_delete_template(const struct fl_visit *visit,
                                           struct MHD_Connection *client,
                                           const struct fl_request *request)
{
    struct fl_acceptor *acceptor = visit->acceptor;
    const char *image = NULL;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_image(client, request, &image, &result);
    if (body)
        result = drop_template(acceptor, client, image);
    json_decref(body);
    return result;
}
