// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/verbs/checkpoint.h"

// Where a Firecracker listens that was not told where.
#define USUAL_API "/run/firecracker.socket"
#define API_OPTION "--api-sock"
#define PID_PREFIX "pid:"
enum { COMMAND_LINE_MAX = 65536 };

static bool read_vm_name(const char *text, const char **ret_key, uint64_t *ret_number)
{
    bool by_pid = strncmp(text, PID_PREFIX, strlen(PID_PREFIX)) == 0;
    *ret_key = by_pid ? "pid" : "id";
    return cli_parse_number(by_pid ? text + strlen(PID_PREFIX) : text, 1, INT64_MAX, ret_number) ==
           0;
}

static const json_t *find_vm(const json_t *status, const char *key, uint64_t number)
{
    size_t i;
    const json_t *vm;
    json_array_foreach(json_object_get(status, "vm_list"), i, vm)
    {
        if ((uint64_t)json_integer_value(json_object_get(vm, key)) == number)
            return vm;
    }
    return NULL;
}

static int take_vm(const json_t *status, const json_t *vm, struct checkpoint_vm *ret_vm,
                   struct fl_error *ret_error)
{
    const char *image = json_string_value(json_object_get(vm, "image"));
    const char *store =
        json_string_value(json_object_get(json_object_get(status, "store"), "path"));
    ret_vm->id = (uint64_t)json_integer_value(json_object_get(vm, "id"));
    ret_vm->pid = (pid_t)json_integer_value(json_object_get(vm, "pid"));
    ret_vm->store = store ? strdup(store) : NULL;
    snprintf(ret_vm->image, sizeof(ret_vm->image), "%s", image ? image : "");
    if (store && !ret_vm->store)
        return fl_fail(ret_error, -ENOMEM, "the server's status cannot be read");
    return 0;
}

const char *checkpoint_vm_text(const struct checkpoint_vm *vm, char text[CHECKPOINT_VM_TEXT])
{
    if (vm->id)
        snprintf(text, CHECKPOINT_VM_TEXT, "VM %" PRIu64, vm->id);
    else
        snprintf(text, CHECKPOINT_VM_TEXT, "process %d", (int)vm->pid);
    return text;
}

// A process that nobody need serve. The server is asked only for its store.
static int find_process(const struct checkpoint_order *order, struct checkpoint_vm *ret_vm,
                        struct fl_error *ret_error)
{
    const char *key;
    uint64_t number;
    json_t *status = NULL;
    if (!read_vm_name(order->vm, &key, &number) || *key != 'p' || number > INT_MAX)
        return fl_fail_plain(ret_error, -EINVAL,
                             "'%s' is no process: with --base the VM must be pid:N", order->vm);
    if (!order->store &&
        control_ask(order->verb, order->control, "/v1/status", NULL, &status) != EXIT_DONE)
        return fl_fail_plain(ret_error, -ENOTCONN, "%s", ""); // it has said why
    int error = take_vm(status, NULL, ret_vm, ret_error);
    ret_vm->pid = (pid_t)number;
    snprintf(ret_vm->image, sizeof(ret_vm->image), "%s", order->base);
    json_decref(status);
    return error;
}

int checkpoint_find_vm(const struct checkpoint_order *order, struct checkpoint_vm *ret_vm,
                       struct fl_error *ret_error)
{
    if (order->base)
        return find_process(order, ret_vm, ret_error);
    const char *key;
    uint64_t number;
    json_t *status = NULL;
    if (!read_vm_name(order->vm, &key, &number))
        return fl_fail_plain(ret_error, -EINVAL,
                             "'%s' is no VM: it must be a number of 'faultline status', or pid:N",
                             order->vm);
    if (control_ask(order->verb, order->control, "/v1/status", NULL, &status) != EXIT_DONE)
        return fl_fail_plain(ret_error, -ENOTCONN, "%s", ""); // it has said why
    const json_t *vm = find_vm(status, key, number);
    int error = vm ? take_vm(status, vm, ret_vm, ret_error)
                   : fl_fail_plain(ret_error, -ENOENT,
                                   "the server at %s serves no VM with the %s %" PRIu64
                                   ": 'faultline status' lists them",
                                   order->control, *key == 'p' ? "process id" : "number", number);
    json_decref(status);
    return error;
}

// --- the API of its Firecracker ---

// All words of a command line, with a NUL behind each.
static size_t read_command_line(pid_t pid, char text[COMMAND_LINE_MAX + 1])
{
    char path[64];
    size_t used = 0;
    ssize_t got = 1;
    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && got > 0 && used < COMMAND_LINE_MAX) {
        got = read(fd, text + used, COMMAND_LINE_MAX - used);
        used += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    text[used] = '\0';
    return used;
}

// What "--api-sock" is given, as one word or two. "": there is no such option.
static const char *find_option(const char *text, size_t length)
{
    for (size_t at = 0; at < length; at += strlen(text + at) + 1) {
        const char *word = text + at;
        if (strcmp(word, API_OPTION) == 0)
            return at + strlen(word) + 1 < length ? word + strlen(word) + 1 : "";
        if (strncmp(word, API_OPTION "=", strlen(API_OPTION "=")) == 0)
            return word + strlen(API_OPTION "=");
    }
    return "";
}

char *checkpoint_find_api(pid_t pid, struct fl_error *ret_error)
{
    char *path = NULL;
    char *text = malloc(COMMAND_LINE_MAX + 1);
    size_t length = text ? read_command_line(pid, text) : 0;
    const char *given = length > 0 ? find_option(text, length) : "";
    const char *socket = *given ? given : USUAL_API;
    // From the process's own root, or from its current directory.
    int made = asprintf(&path, "/proc/%d/%s%s%s", (int)pid, *socket == '/' ? "root" : "cwd",
                        *socket == '/' ? "" : "/", socket);
    if (made < 0)
        path = NULL;
    if (path && access(path, F_OK) != 0) {
        fl_fail_plain(ret_error, -ENOENT,
                      "the API of the VM's process %d was looked for at %s: %s; --api names it",
                      (int)pid, path, strerror(errno));
        free(path);
        path = NULL;
    } else if (!path) {
        fl_fail(ret_error, -ENOMEM, "the API of the VM's process %d cannot be looked for",
                (int)pid);
    }
    free(text);
    return path;
}
