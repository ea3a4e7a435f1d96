// SPDX-License-Identifier: Apache-2.0
//
// /v1/huge: whether one VM's working set is to be pages of 2 MiB, from now on.
#include "engine/accept/acceptor.h"
#include "engine/accept/huge_order.h"
#include "engine/control/control_request.h"
#include "engine/control/routes.h"
#include "engine/vm/vm.h"
#include "engine/vm/vms.h"
#include "engine/worker/engine.h"

static enum MHD_Result order_huge(struct fl_engine *engine, struct MHD_Connection *client,
                                  uint64_t id, enum fl_huge huge)
{
    struct fl_vm *vm = fl_vms_find(&engine->vms, id);
    if (!vm || fl_vm_refused(vm))
        return fl_control_send_error(client, MHD_HTTP_NOT_FOUND,
                                     "there is no VM %llu that is served", (unsigned long long)id);
    const char *why_not = huge == FL_HUGE_AFTER_REPLAY ? fl_huge_why_not(engine, vm) : NULL;
    if (why_not)
        return fl_control_send_error(client, MHD_HTTP_CONFLICT,
                                     "VM %llu cannot have its pages put together: %s",
                                     (unsigned long long)id, why_not);
    if (fl_huge_order(engine, vm, huge) != 0)
        return fl_control_send_error(client, MHD_HTTP_INTERNAL_SERVER_ERROR,
                                     "there is no memory to have the pages of VM %llu put together",
                                     (unsigned long long)id);
    return fl_control_send_json(client, MHD_HTTP_ACCEPTED,
                                json_pack("{s:I, s:s, s:s}", "vm", (json_int_t)id, "image",
                                          fl_vm_image_name(vm), "huge", fl_huge_name(huge)));
}

enum MHD_Result fl_control_post_huge(const struct fl_visit *visit, struct MHD_Connection *client,
                                     const struct fl_request *request)
{
    json_int_t vm = -1;
    const char *text = NULL;
    enum fl_huge huge = FL_HUGE_DEFAULT;
    enum MHD_Result result = MHD_NO;
    json_t *body = fl_control_read_body(client, request, &result);
    if (!body)
        return result;
    if (json_unpack(body, "{s:I, s:s !}", "vm", &vm, "huge", &text) != 0 || vm < 0 ||
        !fl_huge_parse(text, &huge))
        result = fl_control_send_error(
            client, MHD_HTTP_BAD_REQUEST,
            "the body must be {\"vm\": N, \"huge\": \"off\" or \"after-replay\"}");
    else
        result = order_huge(visit->acceptor->engine, client, (uint64_t)vm, huge);
    json_decref(body);
    return result;
}
