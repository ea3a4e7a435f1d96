// SPDX-License-Identifier: Apache-2.0
//
// The system calls that a process may still make (seccomp, by libseccomp). A filter is for good,
// and whatever the process starts has it too, over an exec and an upgrade. So there are two of
// them:
//
//   keeper   is inherited by engines of all versions to come: it refuses (EPERM) what administers
//            the host, and (ENOSYS) calls that libseccomp does not know. What is left is more than
//            Linux 6.1 has of other calls, and every version can do with that.
//   engine   only what the engine makes after its start. Programs cannot be started, memory cannot
//            be made executable, sockets are local. To start a program, or to administer the host,
//            ends the process by SIGSYS. Any other call that is not on the list is refused with
//            ENOSYS, as an older kernel would, and counted: a corner that no test has seen must
//            not kill an engine, and then the next one, which would come to the same place.
#ifndef FAULTLINE_BASE_CALL_FILTER_H
#define FAULTLINE_BASE_CALL_FILTER_H

#include <stdbool.h>
#include <stdint.h>

enum fl_call_filter { FL_CALL_FILTER_KEEPER, FL_CALL_FILTER_ENGINE };
// LOG: refuses nothing; the kernel's log (audit) names each call that would have been refused.
enum fl_call_filter_mode { FL_CALL_FILTER_ON, FL_CALL_FILTER_OFF, FL_CALL_FILTER_LOG };

struct fl_call_filter_options {
    enum fl_call_filter_mode mode;
    bool internet; // it may make sockets of AF_INET and AF_INET6
    bool mounts;   // the keeper mounts files, and unmounts them
};

// For all threads of the process, and for ever. 0 or -errno, and then nothing is filtered. For the
// engine: makes SIGSYS its own (call_filter.c).
int fl_call_filter_install(enum fl_call_filter which, const struct fl_call_filter_options *options);
// Writes the program that would be installed to a file, as struct sock_filter. 0 or -errno.
int fl_call_filter_export(enum fl_call_filter which, const struct fl_call_filter_options *options,
                          int fd);

// How many calls were refused in this process. Any thread.
uint64_t fl_call_filter_refused(void);
// Says in the log which calls were refused for the first time since it was asked last. One thread.
void fl_call_filter_tell(void);

#endif
