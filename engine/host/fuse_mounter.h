// SPDX-License-Identifier: Apache-2.0
//
// The mounter: mounts images as files for a server that may not, or whose mount namespace is not
// the VMMs'. It is a process of root's in the host's namespace, which the service manager starts
// for each connection to its socket (tools/systemd/faultline-files.socket): it mounts at the one
// place that it was started for, gives the descriptor of /dev/fuse to who asks, and ends. So the
// server needs neither CAP_SYS_ADMIN nor /dev/fuse, and who breaks into it can mount at no other
// place.
#ifndef FAULTLINE_HOST_FUSE_MOUNTER_H
#define FAULTLINE_HOST_FUSE_MOUNTER_H

#include "engine/host/fuse_place.h"

#define FL_FUSE_MOUNTER_SOCKET "/run/faultline-files.sock"

// Mounter: serves the one order that comes over the socket, a SOCK_SEQPACKET; the peer is whom the
// connection belongs to. The directory in which `path` is must be root's alone, or the peer could
// put another one in its place. 0, or -errno after the peer was told.
int fl_fuse_mounter_serve(int socket, const char *path, char reason[FL_FUSE_REASON]);

// Server: has it mounted, or unmounted. Main thread; waits for some seconds at most. 0, or -errno
// with the end of a sentence; -ENOENT or -ECONNREFUSED: there is no mounter.
int fl_fuse_mounter_make(const char *path, struct fl_fuse_place *ret_place,
                         char reason[FL_FUSE_REASON]);
int fl_fuse_mounter_remove(const char *path, unsigned connection, char reason[FL_FUSE_REASON]);

#endif
