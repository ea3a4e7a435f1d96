#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# io_uring_enter() with a read of a file into a page that a userfaultfd has missing.
#
# With:     Linux 6.18.44, x86-64, ext4 (a file that is in the page cache; the same with O_DIRECT).
# Guess:    it submits and returns at once, as it is asked to wait for nothing. A worker of the kernel waits for the
#           page; what was submitted behind the read is done meanwhile.
# Behaviour: the thread that submits waits for the page itself, within io_uring_enter(), and with it all that stands
#           behind the read in the ring. With IOSQE_ASYNC, or where the file is a memfd, it is as guessed.
# Output seen: as the last lines of this file. "while missing" is what was so before the page was filled.
# So:       a VMM that does its disk I/O by io_uring from its event loop stops there after a restore, for one missing
#           page of a guest's buffer: its other devices and its API wait as well, for as long as the page takes.
#
# Exits with 0 if it is still so.
set -euo pipefail
dir=$(mktemp -d -p "${FINDING_DIR:-/var/tmp}")
trap 'rm -rf "$dir"' EXIT
case $(stat -f -c %T "$dir") in ext*) ;; *) echo "FINDING_DIR must be on ext4"; exit 77 ;; esac
cat >"$dir/submit.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096 };
static int uffd, ring;
static struct io_uring_params setup;
static char *sq, *cq;
static atomic_bool returned;

static unsigned completed(void) { return atomic_load((_Atomic unsigned *)(cq + setup.cq_off.tail)); }

static void *serve(void *what)
{
    static char source[PAGE];
    struct pollfd ready = {.fd = uffd, .events = POLLIN};
    struct uffd_msg message;
    if (poll(&ready, 1, 5000) != 1 || read(uffd, &message, sizeof(message)) != sizeof(message))
        _exit(1);
    for (int i = 0; i < 500 && (!returned || completed() < 1); i++)
        usleep(1000); // half a second for it to return
    printf("%s: while missing: io_uring_enter %s, %u completed\n", (char *)what, returned ? "returned" : "waits",
           completed());
    struct uffdio_copy copy = {
        .dst = message.arg.pagefault.address & ~(PAGE - 1ull), .src = (uintptr_t)source, .len = PAGE};
    ioctl(uffd, UFFDIO_COPY, &copy);
    return NULL;
}

static void read_into_missing(int file, int flags, char *what)
{
    struct uffdio_api api = {.api = UFFD_API};
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)page, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    pthread_t server;
    memset(&setup, 0, sizeof(setup));
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    ring = (int)syscall(SYS_io_uring_setup, 8, &setup);
    if (ring < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &range) != 0)
        _exit(77);
    sq = mmap(NULL, setup.sq_off.array + 8 * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    cq = mmap(NULL, setup.cq_off.cqes + setup.cq_entries * 16, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
              IORING_OFF_CQ_RING);
    struct io_uring_sqe *entry = mmap(NULL, 8 * 64, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    entry[0] = (struct io_uring_sqe){
        .opcode = IORING_OP_READ, .fd = file, .addr = (uintptr_t)page, .len = PAGE, .flags = (uint8_t)flags};
    entry[1] = (struct io_uring_sqe){.opcode = IORING_OP_NOP};
    unsigned *order = (unsigned *)(sq + setup.sq_off.array);
    order[0] = 0;
    order[1] = 1;
    atomic_store((_Atomic unsigned *)(sq + setup.sq_off.tail), 2);
    returned = false;
    pthread_create(&server, NULL, serve, what);
    if (syscall(SYS_io_uring_enter, ring, 2, 0, 0, NULL, 0) != 2)
        _exit(77);
    returned = true;
    pthread_join(server, NULL);
    while (completed() < 2)
        syscall(SYS_io_uring_enter, ring, 0, 2, IORING_ENTER_GETEVENTS, NULL, 0);
    printf("%s: at the end: byte %c\n", what, page[0]);
    close(ring);
    close(uffd);
}

int main(int argc, char **argv)
{
    static char content[PAGE];
    int file = open(argv[argc - 1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    memset(content, 'A', PAGE);
    if (write(file, content, PAGE) != PAGE)
        return 77;
    read_into_missing(file, 0, "read, nop");
    read_into_missing(file, IOSQE_ASYNC, "read with IOSQE_ASYNC, nop");
    return 0;
}
C
gcc -pthread -include stdbool.h -o "$dir/submit" "$dir/submit.c"
timeout 30 "$dir/submit" "$dir/file" >"$dir/out" || { cat "$dir/out"; exit 77; }
cat "$dir/out"
diff "$dir/out" - <<'OUT'
read, nop: while missing: io_uring_enter waits, 0 completed
read, nop: at the end: byte A
read with IOSQE_ASYNC, nop: while missing: io_uring_enter returned, 1 completed
read with IOSQE_ASYNC, nop: at the end: byte A
OUT
