// SPDX-License-Identifier: Apache-2.0
//
// How long the name of an image may be, in what outlives a process or is shared between two.
#ifndef FAULTLINE_BASE_IMAGE_NAME_H
#define FAULTLINE_BASE_IMAGE_NAME_H

// With the '\0' at its end. A part of formats: it must not change.
enum { FL_IMAGE_NAME_BYTES = 136 };

#endif
