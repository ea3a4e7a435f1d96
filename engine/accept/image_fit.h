// SPDX-License-Identifier: Apache-2.0
//
// Whether the regions that a handshake, or another server, tells of fit the image. Pure; any
// thread.
#ifndef FAULTLINE_ACCEPT_IMAGE_FIT_H
#define FAULTLINE_ACCEPT_IMAGE_FIT_H

#include <stdbool.h>
#include <stdint.h>

struct fl_error;
struct fl_image;
struct fl_layout;

// How many bytes a memory file of that image can have: the image's, up to a whole page of the VM.
uint64_t fl_image_fit_room(const struct fl_image *image, unsigned page_shift);

// `part`: it may have a part of the image only. `template`: it maps the image's template. 0, or
// -EINVAL with the reason.
int fl_image_fit(const struct fl_layout *layout, const struct fl_image *image, bool part,
                 bool template, struct fl_error *ret_error);

#endif
