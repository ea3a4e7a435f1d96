// SPDX-License-Identifier: Apache-2.0
//
// What images on offer have left over: the files of those whose process was killed. Any thread;
// blocks on storage.
#ifndef FAULTLINE_SNAPSHOT_OFFER_LEFT_H
#define FAULTLINE_SNAPSHOT_OFFER_LEFT_H

#include <stdbool.h>
#include <stdint.h>

// Whether this file in the directory of images was left over by an image on offer.
bool fl_offer_is_left(int images_fd, const char *file);
// Removes the file if it is, with the table of a head. True if it did.
bool fl_offer_remove_left(int images_fd, const char *file);

#endif
