// SPDX-License-Identifier: Apache-2.0
//
// What an image can have besides memory: companions, which are small files that belong to it (the
// VMM's state, for example), labels, and the name of the image that it was made from.
#ifndef FAULTLINE_SNAPSHOT_ABOUT_H
#define FAULTLINE_SNAPSHOT_ABOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "snapshot/read.h"

#define FL_COMPANIONS_MAX 64u // of an image
#define FL_COMPANION_BYTES_MAX (UINT64_C(1) << 30)
// The most bytes of all labels of an image.
#define FL_LABELS_BYTES_MAX 65536u

// A companion that is written to the store, or back to a file.
struct fl_companion_file {
    const char *name; // as an image's may be; each once
    const char *path;
};

struct fl_companion {
    char name[FL_NAME_MAX + 1];
    uint64_t bytes;
    uint8_t content_id[32]; // SHA-256 of the SHA-256s of its pages, the last one filled with zeros
};

struct fl_image_about {
    char parent[FL_NAME_MAX + 1]; // "": none. The image may be gone or have other content now
    uint8_t parent_content_id[32];
    struct fl_companion *companions; // sorted by name
    size_t companions_count;
    char **labels; // KEY=VALUE, sorted
    size_t labels_count;
};

void fl_image_about_free(struct fl_image_about *about); // of zero bytes: a no-op

// Returns true if this is a label: KEY=VALUE, where the key is named as an image is, and the value
// is printable ASCII or empty.
bool fl_label_valid(const char *label);
// Orders labels by their keys: 0 if the keys are equal.
int fl_label_compare(const char *left, const char *right);

#endif
