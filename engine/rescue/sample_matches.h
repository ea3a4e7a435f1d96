// SPDX-License-Identifier: Apache-2.0
//
// Where an image has the content of samples: every page of the image is looked at once. Blocks on
// storage; any thread.
#ifndef FAULTLINE_RESCUE_SAMPLE_MATCHES_H
#define FAULTLINE_RESCUE_SAMPLE_MATCHES_H

#include <stdint.h>

#include "engine/rescue/memory_samples.h"
#include "snapshot/read.h"

// Of one sample. Content that the image has once tells where the sample belongs; content that it
// has several times does not.
struct fl_match {
    uint32_t places; // pages of the image that have its content; 2: that or more. Of zeros: 0
    uint64_t page;   // of the image, if there is one
};

// ret_match[samples->count]. -ENOMEM; errors of reading the image.
int fl_matches_find(const struct fl_samples *samples, const struct fl_image *image,
                    struct fl_match *ret_match);

// Frames that are read one after the other; the last is kept.
struct fl_page_reader {
    const struct fl_image *image;
    struct fl_frame_id id;
    bool any;
    uint8_t *frame;
};
int fl_page_reader_open(struct fl_page_reader *reader, const struct fl_image *image);
void fl_page_reader_close(struct fl_page_reader *reader);
// The first page of a run that is not zero, and those after it; the reader's, until the next call.
int fl_page_reader_get(struct fl_page_reader *reader, const struct fl_run *run,
                       const uint8_t **ret_pages);

#endif
