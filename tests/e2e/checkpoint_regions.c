// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints of VMs of other layouts: with more than 4 GiB, in regions that lie apart (as
// Firecracker's do above 3 GiB), and with a region of virtio-mem, of which parts are plugged in and
// unplugged all the time. Little of the memory is touched, so that it costs little.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/checkpoint_world.h"

TestSuite(checkpoint_regions, .init = need_userfaultfd, .fini = checkpoint_world_close,
          .timeout = 300);

#define LARGE (UINT64_C(5) << 30)
enum { BYTES = 16 << 20, SLOTS = 6, SLOT_BYTES = 1 << 20 };

static struct checkpoint_world *all;

static void take(const char *name, const char *option)
{
    char text[CHECKPOINT_TEXT];
    const char *args[] = {"--name", name, option, NULL};
    int status = checkpoint_do("checkpoint", text, args);
    cr_assert_eq(status, 0, "%d: %s", status, text);
}

// --- more than 4 GiB ---

// The image's memory file, as long as it must be and with holes where nothing was written.
static int unpack(const char *name, char path[2 * TEST_PATH])
{
    char text[CHECKPOINT_TEXT];
    struct stat status;
    snprintf(path, (size_t)2 * TEST_PATH, "%s", temp_path(&all->world->temp, "unpacked"));
    const char *args[] = {"unpack", "--force", "--store", all->world->store, name, path, NULL};
    cr_assert_eq(faultline_run(text, sizeof(text), args), 0, "%s", text);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &status) == 0);
    cr_assert_eq((uint64_t)status.st_size, LARGE);
    return fd;
}

static bool is_as_it_was(const uint8_t *bytes, uint64_t sequence)
{
    uint64_t first;
    uint64_t last;
    memcpy(&first, bytes, sizeof(first));
    memcpy(&last, bytes + PAGE - sizeof(last), sizeof(last));
    return first == sequence && last == sequence &&
           all_zero(bytes + sizeof(first), PAGE - 2 * sizeof(first));
}

// Of the empty memory: a page that was not written to is zeros, and in a hole or not.
static void large_image_is_right(const char *name)
{
    char path[2 * TEST_PATH];
    uint8_t bytes[PAGE];
    int fd = unpack(name, path);
    const struct writers *moment = all->mini->moment;
    uint64_t data = 0; // up to where it is known what is in holes
    uint64_t written = 0;
    for (uint64_t at = 0; at < LARGE; at += PAGE) {
        uint64_t sequence = moment->page[at / all->mini->page_bytes].sequence;
        written += sequence != 0;
        if (at >= data) {
            off_t next = lseek(fd, (off_t)at, SEEK_DATA);
            data = next < 0 ? LARGE : (uint64_t)next;
        }
        if (at < data && !sequence)
            continue;
        cr_assert_eq(pread(fd, bytes, PAGE, (off_t)at), PAGE);
        cr_assert(is_as_it_was(bytes, sequence), "at %llu: not %llu", (unsigned long long)at,
                  (unsigned long long)sequence);
        data = at + PAGE > data ? at + PAGE : data;
    }
    cr_assert_gt(written, 10);
    close(fd);
    unlink(path);
}

// By a thread that goes on: whatever is read here was so at some time.
static bool last_page_is_written(void *arg)
{
    const struct writers *writers = arg;
    return __atomic_load_n(&writers->page[writers->pages - 1].sequence, __ATOMIC_RELAXED) > 0;
}

static void of_a_large_vm(uint32_t page_bytes, uint32_t hot, uint64_t operations)
{
    all = checkpoint_world_make(EMPTY, LARGE);
    cr_assert(mini_make_writers(all->mini, page_bytes));
    all->mini->writers->hot = hot;
    all->mini->writers->spread = true;
    checkpoint_world_start();
    cr_assert(writers_go_on(all->mini->writers, operations));
    cr_assert(wait_until(last_page_is_written, all->mini->writers));
    take("one", "--keep-armed");
    large_image_is_right("one");
    cr_assert(writers_go_on(all->mini->writers, operations / 4));
    take("two", NULL); // of another moment, from what was written since
    large_image_is_right("two");
    checkpoint_left_nothing();
    client_kill(&all->vm); // it would look at all of its pages
    world_stop(all->world);
}

Test(checkpoint_regions, of_more_than_4_gib)
{
    of_a_large_vm(PAGE, 500, 3000);
}

Test(checkpoint_regions, of_more_than_4_gib_in_huge_pages)
{
    enum { HOT = 20 };
    need_huge_pages(HOT + 1);
    of_a_large_vm(HUGE, HOT, 200);
}

// --- virtio-mem ---

static void with_virtio_mem(uint32_t page_bytes, uint32_t slots, uint64_t slot_bytes)
{
    char name[16];
    all = checkpoint_world_make_longer(MIXED, BYTES, slots * slot_bytes);
    cr_assert(mini_make_writers(all->mini, page_bytes) &&
              mini_add_hotplug(all->mini, slots, slot_bytes));
    checkpoint_world_start();
    for (unsigned i = 0; i < 6; i++) {
        cr_assert(writers_go_on(all->mini->writers, 400));
        snprintf(name, sizeof(name), "image-%u", i);
        take(name, i < 4 ? "--keep-armed" : "--full");
        checkpoint_image_is_right(name);
    }
    checkpoint_left_nothing();
    checkpoint_restores("image-5");
    checkpoint_world_stop();
}

Test(checkpoint_regions, with_virtio_mem)
{
    with_virtio_mem(PAGE, SLOTS, SLOT_BYTES);
}

Test(checkpoint_regions, with_virtio_mem_in_huge_pages)
{
    need_huge_pages((BYTES + SLOTS * 2 * HUGE) / HUGE + 1);
    with_virtio_mem(HUGE, SLOTS, 2 * HUGE);
}
