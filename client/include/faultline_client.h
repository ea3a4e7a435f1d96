// SPDX-License-Identifier: Apache-2.0
//
// The client's side of a page-fault handler. The library gives a process memory that has the
// content of an image and is filled page by page, when it is touched. It is for programs that have
// no userfaultfd of their own. It sends Firecracker's handshake, so every handler that serves
// Firecracker serves it as well. (The handshake has two keys more. "part":true: a client may map
// a part of the image, and a VMM may not. "reserved":true: the pool has set its pages aside.)
//
// C and C++. Link with -lfaultline-client, or by the pkg-config file faultline-client or the CMake
// package FaultlineClient; this header needs no other header of the project.
//
// Units: all sizes and offsets are bytes.
//
// Errors: every function that returns an int returns 0, or a negative errno value. Outputs are
// written on success only. A call that fails closes every descriptor and unmaps every mapping that
// it has made itself.
//
// Success means that the handler's socket has taken the handshake, as the handshake has no answer.
// A handler that refuses it later (because the image is too small, for example) poisons the memory,
// and touching it raises SIGBUS.
//
// Ownership: a client owns its memory and two descriptors, both close-on-exec, until
// fl_client_close(). The first is its connection: the handler takes its end for the end of the
// client. The second is its userfaultfd: while the client holds it, a touch of a missing page waits
// when the handler has died; without it the page would read as zeros.
//
// Rights: the kernel's own accesses to the memory (KVM, read(), io_uring) are served like any
// other. That takes access to /dev/userfaultfd, or CAP_SYS_PTRACE, or
// vm.unprivileged_userfaultfd=1; a call returns -EPERM or -EACCES without.
//
// Page size: the kernel's pages must be of 4 KiB. On a kernel with larger pages (as arm64 may have)
// every call that would hand over memory returns -EOPNOTSUPP.
//
// Threads: calls about different clients may run at the same time. Calls about one client must not.
// All threads may use the memory at any time. No call touches the memory. A call that connects
// waits at most 10 seconds for a busy handler (-ETIMEDOUT).
//
// Fork: a child has none of the memory (MADV_DONTFORK): it would read as zeros there, and touching
// it is SIGSEGV instead. A child must not use its parent's client. It keeps copies of the two
// descriptors open until it calls exec or exits. While it does, a handler does not see the parent's
// death on the socket; a handler that watches the process itself does.
//
// Removing pages: madvise(MADV_DONTNEED) waits until the handler has read the event. The pages are
// zero from then on (for templates see fl_client_map_template()). Do not mremap() the memory: a
// range that is moved is no longer served and reads as zeros.
#ifndef FAULTLINE_CLIENT_H
#define FAULTLINE_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifndef FL_CLIENT_API
#define FL_CLIENT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FL_CLIENT_PAGE = 4096,
    FL_CLIENT_HUGE_PAGE = 2097152, // a page of the hugetlb pool
    // In the place of a page size, for fl_client_map() and fl_client_map_regions(): pages of the
    // pool, if it can set enough of them aside for all of the memory, so that it never runs out for
    // this client; else pages of 4 KiB. fl_client_page_bytes() tells.
    FL_CLIENT_HUGE_IF_ROOM = 1,
    FL_CLIENT_REGIONS_MAX = 64
};

// One handshake and the memory that it handed over.
struct fl_client;

// A range of memory and its place in the image. Regions of one call must not overlap in memory or
// in the image.
struct fl_client_region {
    void *address;   // a multiple of the page size
    uint64_t bytes;  // a multiple of the page size, not 0
    uint64_t offset; // where the region begins in the image: a multiple of 4096
};

// Maps the first `bytes` of the image that is served at socket_path, which may have any length.
// page_bytes is FL_CLIENT_PAGE or FL_CLIENT_HUGE_PAGE, and bytes is a multiple of it, or
// FL_CLIENT_HUGE_IF_ROOM, and bytes is a multiple of 4096. The memory is readable and writable,
// private to the process, and not reserved (MAP_NORESERVE) but for the last. A page of the pool
// that is in no one's reserve may not be there when it is touched: that touch waits for it, and
// ends as one of a page that cannot be had if it does not come in time. It belongs to *ret_client:
// do not unmap it yourself.
//   -EINVAL        a size is wrong
//   -ENOENT        there is no such socket
//   -ECONNREFUSED  no process listens at the path any more
//   -ENOTSOCK      what is at the path is not a socket
//   -ETIMEDOUT     the handler has not accepted the connection for 10 seconds
//   -ENOMEM        there is no memory, or no huge page
//   -EPERM, -EACCES  the process may not have a userfaultfd, or may not connect
FL_CLIENT_API int fl_client_map(const char *socket_path, uint64_t bytes, uint32_t page_bytes,
                                struct fl_client **ret_client, void **ret_address);

// Maps 1 to FL_CLIENT_REGIONS_MAX regions as fl_client_map() does, each with its own place in the
// image. The caller sets bytes and offset of each; the call sets address. Errors are those of
// fl_client_map().
FL_CLIENT_API int fl_client_map_regions(const char *socket_path, struct fl_client_region *regions,
                                        size_t count, uint32_t page_bytes,
                                        struct fl_client **ret_client);

// Maps parts of an image's template. socket_path is IMAGE.template, which `faultline template`
// makes. Pages are of 4 KiB; all clients of the template share each page until they write to it,
// and the host fetches it once. A page that the process writes to becomes its own. A page that it
// gives back (MADV_DONTNEED) has the image's bytes again, not zeros.
//
// A region whose address is set is mapped there, in the place of what the caller has mapped there;
// if the call fails, that range may be unmapped. A region whose address is NULL is mapped anywhere,
// and the call sets its address.
//
// Map the template by this call only: a process that reads a page which has not been fetched yet,
// where no handler watches, makes that page zero for all clients.
//
// Errors are those of fl_client_map_regions(), and:
//   -ENOENT     also if the image has no template any more
//   -EINVAL     also if a region ends beyond the image
//   -EPROTO     the process that listens at the path offers no template
//   -EMFILE     the process has no room for the template's descriptor
//   -ETIMEDOUT  also if the handler does not answer for 10 seconds
FL_CLIENT_API int fl_client_map_template(const char *socket_path, struct fl_client_region *regions,
                                         size_t count, struct fl_client **ret_client);

// Hands over memory that the caller has mapped: private anonymous memory, in whole mappings of
// page_bytes pages. It must never have been touched, because a page that exists is never asked for
// and stays as it is. So it must not have been mapped under mlockall(MCL_FUTURE), which fills it;
// the other calls take care of that themselves.
//
// On success the memory belongs to *ret_client: do not unmap it yourself. On failure it stays the
// caller's; do not use it then, as it reads as zeros, and MADV_DONTFORK may be set.
//
// Errors are those of fl_client_map_regions(), and:
//   -EBUSY  another userfaultfd is registered for the memory
FL_CLIENT_API int fl_client_hand_over(const char *socket_path,
                                      const struct fl_client_region *regions, size_t count,
                                      uint32_t page_bytes, struct fl_client **ret_client);

// The size of the pages of its memory: FL_CLIENT_PAGE or FL_CLIENT_HUGE_PAGE. Since version 0.2.0.
FL_CLIENT_API uint32_t fl_client_page_bytes(const struct fl_client *client);

// Unmaps the memory, closes both descriptors and frees the client. A thread that still touches the
// memory gets SIGSEGV. NULL is a no-op. A handler may keep what it holds for the client until the
// process ends, because some VMMs close the connection while they run.
FL_CLIENT_API void fl_client_close(struct fl_client *client);

#ifdef __cplusplus
}
#endif

#endif
