// SPDX-License-Identifier: Apache-2.0
//
// QEMU's monitor (QMP): orders over a unix socket, a JSON object each, and their answers; events
// between them are passed over. A QMP socket has one client at a time: a second one connects, and
// is heard when the first one has gone. One thread.
#ifndef FAULTLINE_TOOLS_VERBS_QMP_H
#define FAULTLINE_TOOLS_VERBS_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "snapshot/error.h"

struct qmp {
    int fd; // -1: closed
    const char *path;
    pid_t pid;              // that listens there
    unsigned number;        // of the last order
    bool (*gives_up)(void); // asked ten times a second while it waits; NULL: never
    char version[32];       // of QEMU
    char *text;             // what has come and was not read
    size_t used;
    size_t room;
};

// Connects: then qmp->pid is known. Returns 0, or -errno and a sentence; qmp_close() may be called
// in any case. The path stays the caller's.
int qmp_connect(const char *path, struct qmp *ret_qmp, struct fl_error *ret_error);
// Waits to be heard, before the first order.
int qmp_greet(struct qmp *qmp, unsigned timeout_ms, struct fl_error *ret_error);
void qmp_close(struct qmp *qmp);

// Gives an order, with arguments (taken over; NULL: none), and a descriptor (-1: none), and waits
// for what it returns, which the caller owns (ret_answer may be NULL). Returns 0, or -errno and a
// sentence: -EREMOTEIO it is refused, with QEMU's reason; -ETIMEDOUT, -ECANCELED (given up): it may
// still be obeyed; -ECONNRESET QEMU has hung up.
int qmp_order(struct qmp *qmp, const char *command, json_t *arguments, int fd, unsigned timeout_ms,
              json_t **ret_answer, struct fl_error *ret_error);

#endif
