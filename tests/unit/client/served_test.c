// SPDX-License-Identifier: Apache-2.0
//
// Memory that is really filled on demand, by the fake handler.
#include <criterion/criterion.h>
#include <faultline_client.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/server.h"
#include "tests/support/world.h"
#include "tests/unit/client/fake_handler.h"

enum { PAGES = 64 };

static struct temp temp;
static struct fake_handler fake;
static struct fl_client *client;
static unsigned char *memory;

static void set_up(void)
{
    need_userfaultfd();
    temp_make(&temp);
    fake_listen(&fake, temp.path, "fake.sock");
}

static void tear_down(void)
{
    fl_client_close(client);
    if (fake.connection >= 0)
        fake_join(&fake);
    fake_close(&fake);
    temp_remove(&temp);
}

TestSuite(served, .init = set_up, .fini = tear_down, .timeout = 60);

static void start(size_t pages, uint32_t page_bytes)
{
    void *address = NULL;
    int error = fl_client_map(temp_path(&temp, "fake.sock"), pages * page_bytes, page_bytes,
                              &client, &address);
    cr_assert_eq(error, 0);
    memory = address;
    fake_receive(&fake);
    fake_serve(&fake, memory, page_bytes);
}

static void expect_page(size_t page, size_t page_bytes, unsigned char byte)
{
    cr_assert_eq(memory[page * page_bytes], byte);
    cr_assert_eq(memory[(page + 1) * page_bytes - 1], byte);
}

Test(served, every_page_is_asked_for_once)
{
    start(PAGES, FL_CLIENT_PAGE);
    for (size_t page = PAGES; page-- > 0;)
        expect_page(page, FL_CLIENT_PAGE, fake_byte(page));
    cr_assert_eq(fake.faults, PAGES);
}

Test(served, huge_pages)
{
    need_huge_pages(2);
    start(2, FL_CLIENT_HUGE_PAGE);
    expect_page(1, FL_CLIENT_HUGE_PAGE, fake_byte(1));
    expect_page(0, FL_CLIENT_HUGE_PAGE, fake_byte(0));
    cr_assert_eq(fake.faults, 2);
}

// The kernel reads the page, and no user instruction touches it first. KVM does the same.
Test(served, kernel_accesses_are_served)
{
    unsigned char seen[FL_CLIENT_PAGE];
    int ends[2];
    start(PAGES, FL_CLIENT_PAGE);
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    const unsigned char *page = memory + 5UL * FL_CLIENT_PAGE;
    cr_assert_eq(write(ends[1], page, FL_CLIENT_PAGE), FL_CLIENT_PAGE);
    cr_assert_eq(read(ends[0], seen, sizeof(seen)), FL_CLIENT_PAGE);
    cr_assert_eq(seen[0], fake_byte(5));
    cr_assert_eq(fake.faults, 1);
    close(ends[0]);
    close(ends[1]);
}

Test(served, removed_pages_are_told_and_come_back_as_zeros)
{
    start(PAGES, FL_CLIENT_PAGE);
    expect_page(8, FL_CLIENT_PAGE, fake_byte(8));
    cr_assert_eq(madvise(memory + 8UL * FL_CLIENT_PAGE, 8UL * FL_CLIENT_PAGE, MADV_DONTNEED), 0);
    expect_page(8, FL_CLIENT_PAGE, 0);
    expect_page(15, FL_CLIENT_PAGE, 0);
    expect_page(16, FL_CLIENT_PAGE, fake_byte(16));
    cr_assert_eq(fake.removes, 1);
}

Test(served, memory_that_was_mapped_before)
{
    struct fl_client_region region = {.bytes = 2UL * FL_CLIENT_PAGE};
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    region.address = mmap(NULL, region.bytes, PROT_READ, flags, -1, 0);
    memory = region.address;
    cr_assert_neq(region.address, MAP_FAILED);
    const char *path = temp_path(&temp, "fake.sock");
    cr_assert_eq(fl_client_hand_over(path, &region, 1, FL_CLIENT_PAGE, &client), 0);
    fake_receive(&fake);
    fake_serve(&fake, memory, FL_CLIENT_PAGE);
    expect_page(1, FL_CLIENT_PAGE, fake_byte(1));
}
