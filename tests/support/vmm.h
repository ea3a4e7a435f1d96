// SPDX-License-Identifier: Apache-2.0
//
// A mini-Firecracker: maps guest memory, registers it with a userfaultfd and does the handshake as
// Firecracker's versions do, byte for byte. Written from Firecracker's documentation and
// independent of the client library. Runs in a client process (client.h): a failure ends it.
#ifndef FAULTLINE_TESTS_SUPPORT_VMM_H
#define FAULTLINE_TESTS_SUPPORT_VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/client.h"
#include "tests/support/memory.h"

enum { VMM_REGIONS = 4, VMM_TEXT = 1024 };

enum vmm_protocol {
    VMM_1_1,  // no page size; closes the socket after the message
    VMM_1_7,  // page_size_kib, which is in bytes; closes the socket
    VMM_1_12, // page_size as well; keeps the socket until it exits
    VMM_MAIN, // the same; its userfaultfd comes from /dev/userfaultfd
    VMM_PROTOCOLS
};

struct vmm_region {
    uint8_t *base;
    uint64_t bytes;
    uint64_t offset; // in the memory file
};

struct vmm {
    int uffd;
    int socket; // -1: closed
    enum vmm_protocol protocol;
    bool of_file; // vmm_map_file()
    uint32_t page_bytes;
    uint32_t pages; // of page_bytes, of all regions
    unsigned regions;
    struct vmm_region region[VMM_REGIONS];
    const struct memory *memory;
    struct client_shared *shared; // counts pages that were touched; may be NULL
    bool *removed;                // of each page; by its toucher's rules
};

// Maps `memory` as that many regions of about the same size, and registers them.
void vmm_map(struct vmm *vmm, const struct memory *memory, uint32_t page_bytes, unsigned regions,
             enum vmm_protocol protocol);
// The same as Firecracker before 1.12 does it without a balloon: it asks for no events.
void vmm_map_silent(struct vmm *vmm, const struct memory *memory, uint32_t page_bytes,
                    unsigned regions);
// The same with memory that is a memfd, mapped MAP_SHARED, as for a vhost-user device. Returns it.
int vmm_map_shared(struct vmm *vmm, const struct memory *memory, uint32_t page_bytes,
                   unsigned regions);
// The same with the file itself, mapped privately (or shared), as Firecracker's File backend does:
// nobody is told, and there is no userfaultfd.
void vmm_map_file(struct vmm *vmm, const struct memory *memory, unsigned regions, const char *file,
                  bool shared);
// Such a VM gives a page back: of each other page as Firecracker's balloon does, which maps
// anonymous memory over it, and of the others by madvise(). True: it is zeros now, else as in the
// file.
bool vmm_give_back_of_file(struct vmm *vmm, uint32_t page);
// Connects to the socket of a template and maps that instead of anonymous memory; the handshake
// goes over the same connection. `given`: its descriptor stays open there, unless it is NULL.
void vmm_map_template(struct vmm *vmm, const struct memory *memory, unsigned regions,
                      const char *socket, int *given);
void vmm_handshake_template(struct vmm *vmm);
// The parts of it. The userfaultfd has EVENT_REMOVE and what `features` adds.
void vmm_map_memory(struct vmm *vmm, const struct memory *memory, uint32_t page_bytes,
                    unsigned regions, enum vmm_protocol protocol);
// madvise() of all of it, before the handshake.
void vmm_advise(const struct vmm *vmm, int advice);
int vmm_open_uffd(enum vmm_protocol protocol);
void vmm_enable(int uffd, uint64_t features);
void vmm_register(struct vmm *vmm);

// The handshake's text in `text`; its length.
size_t vmm_handshake_text(const struct vmm *vmm, char text[VMM_TEXT]);
// Connects and sends it; the main thread may then touch guest memory at once, as Firecracker does.
void vmm_handshake(struct vmm *vmm, const char *socket);
// A path of any length.
int vmm_connect(const char *socket);
// One sendmsg with that many descriptors.
void vmm_send(int socket, const void *text, size_t length, const int *fds, unsigned count);

// What Firecracker's load does: the handshake, then it touches two pages itself (VMGenID, VMClock),
// before it returns. If no socket is there, or nobody listens, the process exits with 1.
void vmm_load(struct vmm *vmm, const char *socket);

// Before it is registered: a region of virtio-mem, which no access is allowed to until it is
// plugged, at a lower address than the rest. A hole in the memory file, behind the rest.
void vmm_add_hotplug(struct vmm *vmm, uint64_t bytes);
void vmm_plug(struct vmm *vmm, bool plugged);
// A balloon as Firecracker 1.10 has it, of each other page from `page` on: anonymous memory in the
// place of each, and no event.
void vmm_balloon_silently(struct vmm *vmm, uint32_t page, uint32_t count);
// The balloon of any later one: bytes from an address on; of 2 MiB pages a start within a page is
// refused, and all stays as it is: false.
bool vmm_balloon(struct vmm *vmm, uint8_t *start, uint64_t bytes);

uint8_t *vmm_page(const struct vmm *vmm, uint32_t page);
uint64_t vmm_page_offset(const struct vmm *vmm, uint32_t page);
// Touches a page by reading all of it: it must be what the file has, or zeros.
void vmm_check(struct vmm *vmm, uint32_t page);
void vmm_check_zero(struct vmm *vmm, uint32_t page);
// madvise(MADV_DONTNEED).
void vmm_remove(struct vmm *vmm, uint32_t page, uint32_t count);
// The first page of the first range of 2 MiB that is aligned in the VMM's memory, and how many such
// ranges the region has; of all regions.
uint32_t vmm_first_range(const struct vmm *vmm, unsigned region, uint32_t *ret_ranges);
uint32_t vmm_all_ranges(const struct vmm *vmm);

enum vmm_order { VMM_UP, VMM_DOWN, VMM_RANDOM };
// `threads` threads touch and check: each of them every page, or each its share.
void vmm_touch_all(struct vmm *vmm, unsigned threads, enum vmm_order order, bool share);
// Whether reading a byte raises SIGBUS. Any thread, once the handler is installed.
void vmm_catch_sigbus(void);
bool vmm_poisoned(const uint8_t *byte);

#endif
