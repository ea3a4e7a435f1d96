// SPDX-License-Identifier: Apache-2.0
//
// Makes and removes the mount of images as files. Needs CAP_SYS_ADMIN, and the mount namespace in
// which it is to be seen. Main thread of a process with one thread, as it forks; may take some
// seconds where another server's mount hangs.
#ifndef FAULTLINE_HOST_FUSE_PLACE_H
#define FAULTLINE_HOST_FUSE_PLACE_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

enum { FL_FUSE_REASON = PATH_MAX + 256 };

struct fl_fuse_place {
    int device;          // of /dev/fuse, non-blocking; the caller's
    unsigned connection; // 0: the kernel does not tell
};

// Whether this process has CAP_SYS_ADMIN.
bool fl_fuse_may_mount(void);
// Mounts at an absolute path, which is made if it is not there and cleared of what nothing serves.
// `child` (may be NULL) is called in processes that it makes. 0, or -errno with the end of a
// sentence.
int fl_fuse_place_make(const char *path, uid_t uid, gid_t gid, void (*child)(void),
                       struct fl_fuse_place *ret_place, char reason[FL_FUSE_REASON]);
// Unmounts it if it is of this connection and on top: another server's, or whatever else was
// mounted over it, stays. 0 or -errno.
int fl_fuse_place_remove(const char *path, unsigned connection);
// Unmounts what nothing serves. The number of mounts that went.
unsigned fl_fuse_place_clear(const char *path, void (*child)(void));
// As the kernel lists it. The last part is not looked at: a dead mount would not let us. 0 or
// -errno.
int fl_fuse_place_path(const char *path, char ret_path[PATH_MAX]);

#endif
