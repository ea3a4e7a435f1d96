// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/image_fit.h"

#include <errno.h>

#include "engine/host/region.h"
#include "snapshot/error.h"
#include "snapshot/read.h"

uint64_t fl_image_fit_room(const struct fl_image *image, unsigned page_shift)
{
    uint64_t page = 1ULL << page_shift;
    return (fl_image_bytes(image) + page - 1) / page * page;
}

int fl_image_fit(const struct fl_layout *layout, const struct fl_image *image, bool part,
                 bool template, struct fl_error *ret_error)
{
    uint64_t room = fl_image_fit_room(image, layout->page_shift);
    uint64_t end = fl_layout_file_end(layout);
    // Regions do not overlap in the file: those that are as large as it are all of it.
    uint64_t all = layout->pages << layout->page_shift;
    if (template && layout->page_shift != FL_PAGE_SHIFT)
        return fl_fail_plain(ret_error, -EINVAL,
                             "its pages are of 2 MiB, but those of a template of 4 KiB");
    if (end > room)
        return fl_fail_plain(ret_error, -EINVAL,
                             "its regions end at byte %llu of the memory file, but the image has "
                             "%llu",
                             (unsigned long long)end, (unsigned long long)fl_image_bytes(image));
    if (part || all == room)
        return 0;
    return fl_fail_plain(ret_error, -EINVAL,
                         "its regions have %llu bytes, but the image has %llu: is it of another "
                         "VM? (--allow-part takes those that have a part)",
                         (unsigned long long)all, (unsigned long long)fl_image_bytes(image));
}
