// SPDX-License-Identifier: Apache-2.0
//
// What is counted of each image: VMs that attached, faults, pages that came late ... There is a row
// for each of FL_IMAGE_ROWS images, and one more for all others, so that the number of rows is
// bounded however many images come and go. An image that has a row keeps it while it is in the
// store or has VMs. When another one needs the row, its counts go to the row of the others, which
// therefore only grows, as all of them do.
//
// What VMs that are attached have done so far stands in their own states, and is added when it is
// asked for: so nothing more is to be counted on the path of a fault. It goes to the row when the
// VM does.
//
// Control thread only.
#ifndef FAULTLINE_VM_IMAGE_COUNTS_H
#define FAULTLINE_VM_IMAGE_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/counter.h"
#include "engine/base/image_name.h"

struct fl_vm;
struct fl_vms;

enum { FL_IMAGE_ROWS = 64, FL_IMAGE_OTHERS = FL_IMAGE_ROWS, FL_IMAGE_ROWS_ALL };
#define FL_IMAGE_OTHERS_NAME "other" // an image of that name is counted there, too

struct fl_image_counts {
    fl_counter attached;
    fl_counter refused;
    fl_counter faults; // of VMs that have gone, here and below
    fl_counter late;
    fl_counter poisoned; // pages of 4 KiB
};

// All of them, as they stand there.
enum { FL_IMAGE_SERIES = sizeof(struct fl_image_counts) / sizeof(fl_counter) };

struct fl_image_row {
    char name[FL_IMAGE_NAME_BYTES]; // "": the row is free
    struct fl_image_counts counts;
};

struct fl_image_table {
    struct fl_image_row row[FL_IMAGE_ROWS_ALL];
};

struct fl_image_counting {
    struct fl_image_table *table;
    const struct fl_vms *vms;
    // What predecessors have counted in each row, series by series; NULL: nothing.
    fl_counter *carried[FL_IMAGE_SERIES];
    // Whether the store has the image. NULL: every image is taken to be there.
    bool (*exists)(void *arg, const char *image);
    void *arg;
};

// The table may be a predecessor's.
void fl_image_counting_init(struct fl_image_counting *counting, struct fl_image_table *table,
                            const struct fl_vms *vms);
void fl_image_count_attached(struct fl_image_counting *counting, struct fl_vm *vm);
// `image` is what the server itself called it; one that cannot name an image is not counted.
void fl_image_count_refused(struct fl_image_counting *counting, const char *image);
// Once, before it is removed from the table of VMs.
void fl_image_count_gone(struct fl_image_counting *counting, struct fl_vm *vm);

// What there is to show of a row.
struct fl_image_shown {
    const char *name; // "": nothing
    unsigned vms;     // now
    struct fl_image_counts counts;
};
void fl_image_counts_show(struct fl_image_counting *counting,
                          struct fl_image_shown ret_shown[FL_IMAGE_ROWS_ALL]);

#endif
