// SPDX-License-Identifier: Apache-2.0
//
// The programs of docs/checkpoint.md. For Criterion.
#ifndef FAULTLINE_TESTS_SUPPORT_CHECKPOINT_PAGE_H
#define FAULTLINE_TESTS_SUPPORT_CHECKPOINT_PAGE_H

// Writes the Python program that has this word in it to a file; fails if there is not one such.
void checkpoint_page_program(const char *word, const char *to);

#endif
