// SPDX-License-Identifier: Apache-2.0
//
// Who fills a page of a template at the moment when it is sealed must hit nothing else.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/dontdump.h"
#include "engine/host/uffd.h"
#include "engine/template/template.h"

enum { PAGES = 512 };

TestSuite(template_window, .timeout = 30);

Test(template_window, of_a_sealed_one_is_never_anothers)
{
    struct fl_template_shared shared = {0};
    struct fl_template *sealed = NULL;
    struct fl_template *other = NULL;
    struct stat status;
    uint8_t bytes[FL_PAGE_SIZE];
    int uffd = fl_uffd_new();
    if (uffd < 0)
        cr_skip_test("userfaultfd is not to be had here");
    memset(bytes, 'a', sizeof(bytes));
    fl_template_budget_init(&shared.budget, UINT64_C(1) << 30);
    cr_assert_eq(fl_template_new(&shared, 1, "a", PAGES, &sealed), 0);
    for (unsigned page = 0; page < PAGES; page++)
        cr_assert_eq(fl_template_fill(sealed, page, bytes, 1), 1);
    cr_assert_eq(fl_template_seal(sealed), 0);
    // The kernel gives what was unmapped last to the next one of that size.
    cr_assert_eq(fl_template_new(&shared, 2, "b", PAGES, &other), 0);
    cr_assert_neq(other->window, sealed->window);
    // There already, so all is well for who asks.
    cr_assert_eq(fl_template_fill(sealed, 0, bytes, 1), 1);
    cr_assert_eq(fstat(other->memory, &status), 0);
    cr_assert_eq(status.st_blocks, 0, "the other template has bytes of the sealed one");
    fl_template_free(sealed);
    fl_template_free(other);
    close(uffd);
}

// As at the end of a server, when the pool of its reader stops between two slices.
Test(template_window, of_one_whose_reader_ended_halfway_is_freed_with_its_frame)
{
    struct fl_template_shared shared = {0};
    struct fl_template *template = NULL;
    unsigned char there;
    int uffd = fl_uffd_new();
    if (uffd < 0)
        cr_skip_test("userfaultfd is not to be had here");
    fl_template_budget_init(&shared.budget, UINT64_C(1) << 30);
    cr_assert_eq(fl_template_new(&shared, 1, "a", PAGES, &template), 0);
    uint8_t *frame = fl_dontdump_map(FL_TEMPLATE_FRAME_BYTES);
    cr_assert_not_null(frame);
    template->pass.frame = frame;
    fl_template_free(template);
    cr_assert_eq(mincore(frame, FL_PAGE_SIZE, &there), -1, "the frame is still mapped");
    cr_assert_eq(errno, ENOMEM);
    close(uffd);
}
