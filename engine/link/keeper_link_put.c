// SPDX-License-Identifier: Apache-2.0
//
// What the keeper is given to hold. The descriptors stay the caller's: the keeper gets copies.
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/link/keeper_link.h"
#include "engine/link/keeper_link_internal.h"
#include "snapshot/read.h"

// In the place of a connection's record it is safe before the handshake is taken out of its socket,
// and the VM's first fault is read.
static void put_record(struct fl_keeper_link *keeper_link, const struct fl_record_view *record,
                       uint64_t connection)
{
    uint32_t from = 0;
    int none = -1;
    if (!fl_keeper_link_any(keeper_link))
        return;
    for (uint32_t i = 0; i < record->slots && keeper_link->room > 0 && keeper_link->room < UINT_MAX;
         i++)
        keeper_link->room -= record->fd[i] >= 0; // until it says so itself
    if (fl_channel_send_record(keeper_link->source.fd, FL_MESSAGE_PUT, record, connection, &from,
                               true))
        fl_keeper_link_lost(keeper_link);
    if (!connection || !fl_keeper_link_any(keeper_link))
        return;
    int error = fl_keeper_link_wait_for(keeper_link, FL_MESSAGE_KEPT, record->id, -1, &none);
    if (error) // it asks for it again as soon as it can hold it
        fl_log(FL_LOG_ERROR, "event=keep_failed vm=%" PRIu64 " reason=\"%s\"", record->id,
               strerror(-error));
}

void fl_keeper_link_put_vm(struct fl_keeper_link *keeper_link, uint64_t vm,
                           const int fds[FL_VM_SLOTS], uint64_t connection)
{
    put_record(keeper_link, &(struct fl_record_view){FL_RECORD_VM, vm, 0, FL_VM_SLOTS, fds},
               connection);
}

void fl_keeper_link_put_vm_slot(struct fl_keeper_link *keeper_link, uint64_t vm,
                                enum fl_vm_slot slot, int fd, uint64_t connection)
{
    int fds[FL_VM_SLOTS] = {-1, -1, -1, -1};
    fds[slot] = fd;
    fl_keeper_link_put_vm(keeper_link, vm, fds, connection);
}

// Through descriptions of their own, as images share packs, and the keeper's own store outside
// keeps each description once; but rather so than not at all.
static void reopen_files(int *fd, bool *own, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char path[40];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd[i]);
        int new = open(path, O_RDONLY | O_CLOEXEC);
        own[i] = new >= 0;
        fd[i] = own[i] ? new : fd[i];
    }
}

void fl_keeper_link_put_image(struct fl_keeper_link *keeper_link, uint64_t id,
                              const struct fl_image *image)
{
    uint32_t count = fl_image_files(image, NULL, 0);
    uint32_t room = count ? count : 1;
    int *fd = fl_keeper_link_any(keeper_link) ? calloc(room, sizeof(*fd) + sizeof(bool)) : NULL;
    if (!fd)
        return;
    bool *own = (bool *)(fd + room);
    fl_image_files(image, fd, count);
    reopen_files(fd, own, count);
    put_record(keeper_link, &(struct fl_record_view){FL_RECORD_IMAGE, id, 0, count, fd}, 0);
    for (uint32_t i = 0; i < count; i++) {
        if (own[i])
            close(fd[i]);
    }
    free(fd);
}

void fl_keeper_link_put_socket(struct fl_keeper_link *keeper_link, enum fl_inherited_socket id,
                               int fd)
{
    put_record(keeper_link, &(struct fl_record_view){FL_RECORD_SOCKET, id, 0, 1, &fd}, 0);
}

static void put_described(struct fl_keeper_link *keeper_link, enum fl_record_kind kind, uint64_t id,
                          int fd, int description)
{
    int fds[2] = {fd, description};
    put_record(keeper_link, &(struct fl_record_view){kind, id, 0, 2, fds}, 0);
}

void fl_keeper_link_put_listener(struct fl_keeper_link *keeper_link, uint64_t id, int fd,
                                 int description)
{
    put_described(keeper_link, FL_RECORD_LISTENER, id, fd, description);
}

void fl_keeper_link_put_connection(struct fl_keeper_link *keeper_link, uint64_t id, int fd,
                                   int description)
{
    put_described(keeper_link, FL_RECORD_CONNECTION, id, fd, description);
}

void fl_keeper_link_put_template(struct fl_keeper_link *keeper_link, uint64_t id, int memory,
                                 int state)
{
    int fd[FL_TEMPLATE_SLOTS] = {[FL_TEMPLATE_MEMORY] = memory, [FL_TEMPLATE_STATE] = state};
    put_record(keeper_link,
               &(struct fl_record_view){FL_RECORD_TEMPLATE, id, 0, FL_TEMPLATE_SLOTS, fd}, 0);
}

void fl_keeper_link_put_mode(struct fl_keeper_link *keeper_link, uint64_t mode)
{
    int none = -1;
    put_record(keeper_link, &(struct fl_record_view){FL_RECORD_MODE, 1, mode, 1, &none}, 0);
}

void fl_keeper_link_put_counters(struct fl_keeper_link *keeper_link, uint64_t id, int fd)
{
    put_record(keeper_link, &(struct fl_record_view){FL_RECORD_COUNTERS, id, 0, 1, &fd}, 0);
}

void fl_keeper_link_put_files(struct fl_keeper_link *keeper_link, int device, int state,
                              uint32_t connection)
{
    int fd[FL_FILES_SLOTS] = {[FL_FILES_DEVICE] = device, [FL_FILES_STATE] = state};
    put_record(
        keeper_link,
        &(struct fl_record_view){FL_RECORD_FILES, FL_FILES_RECORD, connection, FL_FILES_SLOTS, fd},
        0);
}

void fl_keeper_link_drop(struct fl_keeper_link *keeper_link, enum fl_record_kind kind, uint64_t id)
{
    struct fl_message message = {.type = FL_MESSAGE_DROP, .kind = kind, .id = id};
    fl_keeper_link_send(keeper_link, &message, NULL);
}
