// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>

#include "engine/host/region.h"

static struct fl_layout two_regions(void)
{
    return (struct fl_layout){
        .page_shift = 12,
        .regions = 2,
        .region = {{.base = 0x7f0000000000, .bytes = 0x3000, .offset = 0x5000},
                   {.base = 0x100000, .bytes = 0x2000, .offset = 0}}};
}

Test(region, numbers_pages_through_all_regions)
{
    const char *reason = NULL;
    uint64_t page = 0;
    struct fl_layout layout = two_regions();
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0);
    cr_assert_eq(layout.pages, 5);
    for (uint64_t i = 0; i < layout.pages; i++) {
        cr_assert(fl_layout_page(&layout, fl_layout_address(&layout, i) + 17, &page));
        cr_assert_eq(page, i);
    }
    cr_assert_eq(fl_layout_image_page(&layout, 1), 6);
    cr_assert_eq(fl_layout_image_page(&layout, 4), 1);
    cr_assert_eq(fl_layout_file_end(&layout), 0x8000);
}

Test(region, finds_pages_of_the_image)
{
    const char *reason = NULL;
    uint64_t page = 0;
    uint64_t left = 0;
    struct fl_layout layout = two_regions();
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0);
    for (uint64_t i = 0; i < layout.pages; i++) {
        cr_assert(fl_layout_from_image(&layout, fl_layout_image_page(&layout, i), &page, &left));
        cr_assert_eq(page, i);
        cr_assert_eq(left, i < 3 ? 3 - i : 5 - i);
    }
    cr_assert_not(fl_layout_from_image(&layout, 2, &page, &left)); // between them
    cr_assert_not(fl_layout_from_image(&layout, 8, &page, &left));
}

Test(region, finds_the_huge_page_of_a_page_of_the_image)
{
    const char *reason = NULL;
    uint64_t page = 0;
    uint64_t left = 0;
    struct fl_layout layout = {
        .page_shift = 21,
        .regions = 1,
        .region = {{.base = 0x40000000, .bytes = 0x400000, .offset = 0x1000}}};
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0);
    cr_assert_not(fl_layout_from_image(&layout, 0, &page, &left));
    cr_assert(fl_layout_from_image(&layout, 512, &page, &left));
    cr_assert(page == 0 && left == 513);
    cr_assert(fl_layout_from_image(&layout, 513, &page, &left));
    cr_assert(page == 1 && left == 512);
}

Test(region, knows_what_is_outside)
{
    const char *reason = NULL;
    uint64_t page = 0;
    struct fl_layout layout = two_regions();
    cr_assert_eq(fl_layout_finish(&layout, &reason), 0);
    cr_assert_not(fl_layout_page(&layout, 0x100000 - 1, &page));
    cr_assert_not(fl_layout_page(&layout, 0x102000, &page));
    cr_assert_not(fl_layout_page(&layout, 0, &page));
    cr_assert_not(fl_layout_page(&layout, UINT64_MAX, &page));
}

static void refused(struct fl_layout layout)
{
    const char *reason = NULL;
    cr_assert_eq(fl_layout_finish(&layout, &reason), -EINVAL);
    cr_assert_not_null(reason);
}

Test(region, refuses_what_cannot_be)
{
    struct fl_layout layout = two_regions();
    layout.page_shift = 13;
    refused(layout);
    layout = two_regions();
    layout.regions = 0;
    refused(layout);
    layout = two_regions();
    layout.region[1].base = 0x7f0000002000; // its first page is the other's last
    refused(layout);
    layout = two_regions();
    layout.region[1].offset = 0x7000;
    refused(layout);
    layout = two_regions();
    layout.region[0].bytes = UINT64_MAX & ~0xfffULL;
    refused(layout);
    layout = two_regions();
    layout.region[0].offset = UINT64_MAX & ~0xfffULL;
    refused(layout);
    layout = two_regions();
    layout.region[0].bytes = 0;
    refused(layout);
    layout = two_regions();
    layout.region[0].bytes = 0x3001;
    refused(layout);
    layout = two_regions();
    layout.region[0].base += 1;
    refused(layout);
    layout = two_regions();
    layout.page_shift = 21; // now nothing is aligned
    refused(layout);
}
