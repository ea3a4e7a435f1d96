// SPDX-License-Identifier: Apache-2.0
//
// What templates rely on the kernel for. Each fact is shown here, so that a kernel on which it is
// not so fails this test and no guest.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 1024, READERS = 4, FILLERS = 2, NOBODY = 65534 };

// One file, with the two sides of it: who fills (shared), and a clone (private).
struct facts {
    int file;
    int filler_uffd;
    int clone_uffd;
    uint8_t *shared;
    uint8_t *clone;
    _Atomic bool stop;
    _Atomic unsigned wrong;
};

static int new_uffd(int flags)
{
    struct uffdio_api api = {.api = UFFD_API};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
    cr_assert(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "userfaultfd: %s", strerror(errno));
    return fd;
}

static void watch(int uffd, void *memory)
{
    struct uffdio_register range = {.range = {(uintptr_t)memory, (uint64_t)PAGES * PAGE},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    cr_assert_eq(ioctl(uffd, UFFDIO_REGISTER, &range), 0, "%s", strerror(errno));
}

static void *map(int file, int protection, int flags)
{
    void *memory = mmap(NULL, (size_t)PAGES * PAGE, protection, flags, file, 0);
    cr_assert_neq(memory, MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

static struct facts facts;

static void begin(void)
{
    if (geteuid() != 0)
        cr_skip_test("this test needs root");
    facts = (struct facts){.file = memfd_create("facts", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    cr_assert_eq(ftruncate(facts.file, (off_t)PAGES * PAGE), 0);
    cr_assert_eq(fcntl(facts.file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    facts.filler_uffd = new_uffd(UFFD_USER_MODE_ONLY);
    facts.shared = map(facts.file, PROT_READ, MAP_SHARED);
    watch(facts.filler_uffd, facts.shared);
    facts.clone_uffd = new_uffd(0);
    facts.clone = map(facts.file, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    watch(facts.clone_uffd, facts.clone);
}

TestSuite(template_facts, .init = begin, .timeout = 60);

// A page of its own, none of whose words is zero.
static void pattern(uint32_t page, uint64_t to[PAGE / 8])
{
    for (uint32_t i = 0; i < PAGE / 8; i++)
        to[i] = ((uint64_t)page + 1) << 32 | (i + 1);
}

// 0 or -errno.
static int copy(int uffd, const uint8_t *to, const void *from, uint32_t pages)
{
    struct uffdio_copy request = {
        .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = (uint64_t)pages * PAGE};
    return ioctl(uffd, UFFDIO_COPY, &request) == 0 ? 0 : -errno;
}

static int fill(uint32_t page)
{
    uint64_t bytes[PAGE / 8];
    pattern(page, bytes);
    return copy(facts.filler_uffd, facts.shared + (size_t)page * PAGE, bytes, 1);
}

static void wake_clone(void)
{
    struct uffdio_range all = {(uintptr_t)facts.clone, (uint64_t)PAGES * PAGE};
    ioctl(facts.clone_uffd, UFFDIO_WAKE, &all);
}

static uint64_t filled_bytes(void)
{
    struct stat status;
    cr_assert_eq(fstat(facts.file, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

// --- a page is there whole, or not at all ---

static bool is_whole(const uint8_t *memory, uint32_t page)
{
    uint64_t bytes[PAGE / 8];
    pattern(page, bytes);
    return memcmp(memory, bytes, PAGE) == 0;
}

static void *touch_all(void *arg)
{
    (void)arg;
    for (uint32_t page = 0; page < PAGES; page++) {
        if (!is_whole(facts.clone + (size_t)page * PAGE, page))
            facts.wrong++;
    }
    return NULL;
}

// Through the file a hole is zeros, and a page must be that or whole.
static void *read_all(void *arg)
{
    static const uint8_t zeros[PAGE];
    uint8_t bytes[PAGE];
    (void)arg;
    while (!facts.stop) {
        for (uint32_t page = 0; page < PAGES; page++) {
            if (pread(facts.file, bytes, PAGE, (off_t)page * PAGE) != PAGE ||
                (!is_whole(bytes, page) && memcmp(bytes, zeros, PAGE) != 0))
                facts.wrong++;
        }
    }
    return NULL;
}

// Readers that are woken too early must wait again, not see something.
static void *wake_all(void *arg)
{
    (void)arg;
    while (!facts.stop)
        wake_clone();
    return NULL;
}

static void *fill_all(void *arg)
{
    unsigned *filled = arg;
    for (uint32_t page = 0; page < PAGES; page++) {
        int error = fill(page);
        if (error && error != -EEXIST)
            facts.wrong++;
        *filled += error == 0;
    }
    return NULL;
}

Test(template_facts, a_page_is_seen_whole_or_not_at_all)
{
    pthread_t reader[READERS];
    pthread_t filler[FILLERS];
    pthread_t other[2];
    unsigned filled[FILLERS] = {0};
    pthread_create(&other[0], NULL, read_all, NULL);
    pthread_create(&other[1], NULL, wake_all, NULL);
    for (int i = 0; i < READERS; i++)
        pthread_create(&reader[i], NULL, touch_all, NULL);
    for (int i = 0; i < FILLERS; i++)
        pthread_create(&filler[i], NULL, fill_all, &filled[i]);
    for (int i = 0; i < FILLERS; i++)
        pthread_join(filler[i], NULL);
    for (int i = 0; i < READERS; i++)
        pthread_join(reader[i], NULL);
    facts.stop = true;
    pthread_join(other[0], NULL);
    pthread_join(other[1], NULL);
    cr_assert_eq(facts.wrong, 0);
    cr_assert_eq(filled[0] + filled[1], PAGES, "each page is filled once: %u + %u", filled[0],
                 filled[1]);
}

// No page beside it comes along, whatever the size of folio that shared memory may have.
Test(template_facts, a_fill_makes_no_other_page)
{
    cr_assert_eq(fill(17), 0);
    cr_assert_eq(filled_bytes(), PAGE);
    cr_assert_eq(lseek(facts.file, 0, SEEK_DATA), 17 * PAGE);
    cr_assert_eq(lseek(facts.file, 17 * PAGE, SEEK_HOLE), 18 * PAGE);
    cr_assert_eq(fill(17), -EEXIST);
}

// --- clones ---

Test(template_facts, a_page_that_is_there_raises_no_fault)
{
    struct uffd_msg message;
    cr_assert_eq(fill(3), 0);
    cr_assert(is_whole(facts.clone + 3 * PAGE, 3));
    cr_assert_eq(read(facts.clone_uffd, &message, sizeof(message)), -1);
    cr_assert_eq(errno, EAGAIN);
    // What a clone writes is its own.
    facts.clone[3 * PAGE] = 0;
    cr_assert(is_whole(facts.shared + 3 * PAGE, 3));
}

Test(template_facts, a_clone_can_have_a_page_of_its_own)
{
    uint64_t bytes[PAGE / 8];
    struct uffdio_zeropage zero = {.range = {(uintptr_t)facts.clone + 6 * PAGE, PAGE}};
    pattern(5, bytes);
    cr_assert_eq(copy(facts.clone_uffd, facts.clone + 5 * PAGE, bytes, 1), 0);
    cr_assert_eq(ioctl(facts.clone_uffd, UFFDIO_ZEROPAGE, &zero), 0, "%s", strerror(errno));
    cr_assert_eq(filled_bytes(), 0, "the file has nothing of it");
    cr_assert(is_whole(facts.clone + 5 * PAGE, 5));
    cr_assert_eq(facts.clone[6 * PAGE], 0);
    facts.clone[6 * PAGE] = 1;
    cr_assert_eq(filled_bytes(), 0);
}

// What is given back is the file's again.
Test(template_facts, a_page_that_was_given_back_is_the_files)
{
    cr_assert_eq(fill(9), 0);
    facts.clone[9 * PAGE] = 77;
    cr_assert_eq(madvise(facts.clone + 9 * PAGE, PAGE, MADV_DONTNEED), 0);
    cr_assert(is_whole(facts.clone + 9 * PAGE, 9));
}

// The one way in which a client changes the file: why it is looked for (template_check.c).
Test(template_facts, a_hole_that_nobody_watches_becomes_zeros)
{
    const uint8_t *unwatched = map(facts.file, PROT_READ, MAP_PRIVATE);
    cr_assert_eq(unwatched[4 * PAGE], 0);
    cr_assert_eq(filled_bytes(), PAGE);
    cr_assert_eq(fill(4), -EEXIST);
}

// --- nobody else writes ---

static bool cannot_write(int file)
{
    void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    bool mapped = memory != MAP_FAILED;
    bool wrote = pwrite(file, "x", 1, 0) == 1;
    bool punched = fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == 0;
    return !mapped && !wrote && !punched && ftruncate(file, 0) != 0;
}

static int reopen(int file, int flags)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    return open(path, flags | O_CLOEXEC);
}

static bool another_cannot_reopen(int file)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        bool dropped = setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0;
        // The descriptor's own inode: a process that dropped its rights may not look into /proc
        // of the one that it was.
        bool opened = reopen(file, O_RDWR) >= 0 || fchmod(file, 0666) == 0;
        _exit(dropped && !opened ? 0 : 1);
    }
    return waitpid(child, &status, 0) == child && status == 0;
}

Test(template_facts, who_got_it_to_read_cannot_write)
{
    cr_assert_eq(fchmod(facts.file, 0444), 0);
    int given = reopen(facts.file, O_RDONLY);
    cr_assert_geq(given, 0);
    cr_assert_eq(fill(0), 0);
    cr_assert(cannot_write(given));
    cr_assert(another_cannot_reopen(given));
}

Test(template_facts, when_it_is_sealed_root_cannot_either)
{
    cr_assert_eq(fchmod(facts.file, 0444), 0);
    cr_assert_eq(fill(0), 0);
    cr_assert_eq(fcntl(facts.file, F_ADD_SEALS, F_SEAL_WRITE), -1);
    cr_assert_eq(errno, EBUSY, "not while it is mapped to be filled");
    cr_assert_eq(munmap(facts.shared, (size_t)PAGES * PAGE), 0);
    cr_assert_eq(fcntl(facts.file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL), 0);
    int again = reopen(facts.file, O_RDWR);
    cr_assert_geq(again, 0);
    cr_assert(cannot_write(again));
    cr_assert(cannot_write(facts.file));
    cr_assert(is_whole(facts.clone, 0));
}
