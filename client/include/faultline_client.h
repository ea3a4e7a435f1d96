// SPDX-License-Identifier: Apache-2.0
//
// The client's side of a page-fault handler: memory that looks like the memory file of an image and
// is filled page by page when it is touched. For programs that have no userfaultfd of their own;
// what they send is Firecracker's handshake, so any handler that serves Firecracker serves them.
// (With one key more, "part":true, as a client may map a part of the image, and a VMM may not.)
// C and C++, no other header of the project. Link faultline-client (shared) or
// faultline-client-static.
//
// Units: bytes everywhere. Errors: every int is 0 or a negative errno value; outputs are written on
// success only, and a call that fails leaves no descriptor and no mapping of its own behind.
//
// The handshake has no answer. Success means that the handler's socket has taken it; a handler that
// then refuses it (an image too small, say) poisons the memory, and touching it raises SIGBUS.
//
// Descriptors: a client holds two, both close-on-exec, until fl_client_close(): its connection (the
// handler takes the end of it for the end of the client) and its userfaultfd. It holds the second
// so that memory whose handler has died makes its toucher wait; it would read as zeros otherwise.
//
// Kernel accesses to the memory (KVM, read(), io_uring) are served like any other. That takes
// /dev/userfaultfd, or CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd=1: -EPERM or -EACCES without.
//
// Threads: calls about different clients may run at once. Calls about one client are for one thread
// at a time; the memory itself is for all threads. No call touches the memory. Connecting waits for
// a busy handler, 10 seconds at most (-ETIMEDOUT).
//
// Fork: a child has none of the memory (MADV_DONTFORK: touching it there is SIGSEGV, as it would
// read as zeros otherwise) and must not use the parent's client. Until it execs or exits, it keeps
// copies of the two descriptors open; that delays nothing but the news of the parent's death over
// the socket, and a handler that watches the process itself does not need them.
//
// Removing pages (madvise(MADV_DONTNEED)) is allowed, waits for the handler to have seen it, and
// makes them zero for good (but for templates, see there). mremap() is not: what it moves is no
// longer served and reads as zeros.
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
    FL_CLIENT_HUGE_PAGE = 2097152, // from the hugetlb pool
    FL_CLIENT_REGIONS_MAX = 64
};

struct fl_client; // one handshake, and the memory it handed over

struct fl_client_region {
    void *address;   // a multiple of the page size
    uint64_t bytes;  // a multiple of the page size, not 0
    uint64_t offset; // where it begins in the image; a multiple of 4096
};

// Maps the first `bytes` of the image that listens at socket_path (a path of any length).
// page_bytes is FL_CLIENT_PAGE or FL_CLIENT_HUGE_PAGE, bytes a multiple of it. The memory is
// readable and writable, private to the process, not reserved, and belongs to the client:
// fl_client_close() unmaps it.
// -EINVAL: sizes. -ENOENT: no such socket. -ECONNREFUSED: nobody listens there, or it is no socket.
// -ENOMEM: among others, hugetlb memory is short.
FL_CLIENT_API int fl_client_map(const char *socket_path, uint64_t bytes, uint32_t page_bytes,
                                struct fl_client **ret_client, void **ret_address);

// The same for 1 to FL_CLIENT_REGIONS_MAX regions with places of their own in the image. On entry
// bytes and offset are set, on success address is as well.
FL_CLIENT_API int fl_client_map_regions(const char *socket_path, struct fl_client_region *regions,
                                        size_t count, uint32_t page_bytes,
                                        struct fl_client **ret_client);

// Maps parts of an image's template, which listens at socket_path (IMAGE.template; `faultline
// template` makes it): pages of 4 KiB that all its clients share until they write to them, fetched
// once for the host. A region whose address is set is mapped there, in place of whatever the caller
// has mapped there; the others anywhere. What is written is the process's own; a page that is given
// back (MADV_DONTNEED) has the image's bytes again, not zeros. Otherwise as
// fl_client_map_regions(). Do not map the template in other ways: a page that is read where no
// handler watches, before it has been fetched, is zeros for all clients. -ENOENT: among others,
// there is no template any more. -EINVAL: among others, a region ends beyond the image. -EPROTO:
// what listens there offers no template. -ETIMEDOUT: the handler says nothing.
FL_CLIENT_API int fl_client_map_template(const char *socket_path, struct fl_client_region *regions,
                                         size_t count, struct fl_client **ret_client);

// Hands over memory that the caller has mapped: private, anonymous, never touched (a page that is
// there already is never asked for and stays as it is: so not mapped under mlockall(MCL_FUTURE),
// which fills it; the other calls see to that themselves), in whole mappings of page_bytes pages,
// and not overlapping in memory or in the image. On success it belongs to the client: do not unmap
// it, fl_client_close() does. On failure it stays the caller's, with MADV_DONTFORK perhaps set; do
// not use it then, as it reads as zeros. More errors: -EBUSY: it is registered with another
// userfaultfd.
FL_CLIENT_API int fl_client_hand_over(const char *socket_path,
                                      const struct fl_client_region *regions, size_t count,
                                      uint32_t page_bytes, struct fl_client **ret_client);

// Unmaps the memory, then closes both descriptors and frees the client. A thread that still touches
// the memory gets SIGSEGV. NULL is allowed. A handler may keep what it holds for the client until
// the process ends, as some VMMs hang up while they run.
FL_CLIENT_API void fl_client_close(struct fl_client *client);

#ifdef __cplusplus
}
#endif

#endif
