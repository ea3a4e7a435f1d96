// SPDX-License-Identifier: Apache-2.0
//
// Huge pages of 2 MiB that the test takes, so that others lack them. For Criterion.
#ifndef FAULTLINE_TESTS_SUPPORT_HUGE_HOLD_H
#define FAULTLINE_TESTS_SUPPORT_HUGE_HOLD_H

// Takes all but so many.
void huge_pages_leave(unsigned few);
void huge_pages_give_back(void);

#endif
