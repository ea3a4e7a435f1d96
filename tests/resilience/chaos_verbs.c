// SPDX-License-Identifier: Apache-2.0
//
// The commands of `faultline` that the driver runs against the service.
#include <jansson.h>

#include "tests/resilience/chaos_process.h"
#include "tests/resilience/chaos_service.h"
#include "tests/support/server.h"

pid_t chaos_service_upgrade(const struct chaos_service *service, const char *engine, bool keeper)
{
    const char *args[CHAOS_ARGS] = {service->program, "upgrade", "--control", service->control};
    unsigned count = 4;
    if (keeper)
        args[count++] = "--keeper";
    if (engine != NULL) {
        args[count++] = "--engine";
        args[count++] = engine;
    }
    args[count] = NULL;
    return chaos_spawn(args, service->log_fd);
}

pid_t chaos_service_record(const struct chaos_service *service, const char *runs,
                           const char *window)
{
    const char *args[] = {
        service->program, "record", "--control", service->control, "--store", service->store,
        "--runs",         runs,     "--window",  window,           "--share", "100",
        "image",          NULL};
    return chaos_spawn(args, service->log_fd);
}

pid_t chaos_service_drain(const struct chaos_service *service)
{
    const char *args[] = {service->program, "drain",     "--control", service->control,
                          "--populate",     "--timeout", "30",        NULL};
    return chaos_spawn(args, service->log_fd);
}

static long long number(const json_t *status, const char *object, const char *key)
{
    const json_t *value = json_object_get(object ? json_object_get(status, object) : status, key);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

struct chaos_status chaos_service_status(const struct chaos_service *service)
{
    static char output[1 << 20];
    const char *args[] = {"status", "--control", service->control, "--json", NULL};
    if (faultline_run(output, sizeof(output), args) != 0)
        return (struct chaos_status){.vms = -1, .lacks = -1};
    json_t *status = json_loads(output, 0, NULL);
    struct chaos_status result = {
        .vms = number(status, NULL, "vms"),
        .waiting = number(status, "faults", "parked") + number(status, "replay", "running"),
        .lacks = (long long)json_array_size(json_object_get(status, "degraded")),
        .memory = number(status, "memory", "allocated")};
    json_decref(status);
    return result;
}
