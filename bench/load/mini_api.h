// SPDX-License-Identifier: Apache-2.0
//
// The HTTP of a VMM's API socket, as far as a checkpoint needs it: one thread that answers one
// request after the other, over connections that stay open, as Firecracker does.
#ifndef FAULTLINE_BENCH_LOAD_MINI_API_H
#define FAULTLINE_BENCH_LOAD_MINI_API_H

#include <stddef.h>

enum { MINI_API_TEXT = 1 << 16 };

struct mini_request {
    const char *method;
    const char *path;
    const char *body; // "" without one
};

// Writes the JSON of the answer, or "", and returns the HTTP status.
typedef int mini_api_answer(void *context, const struct mini_request *request,
                            char reply[MINI_API_TEXT]);

// Listens at `path`, which must not exist. A descriptor or -errno.
int mini_api_listen(const char *path);
// Answers requests for ever; returns -errno when it cannot go on.
int mini_api_serve(int listener, mini_api_answer *answer, void *context);

#endif
