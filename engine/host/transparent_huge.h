// SPDX-License-Identifier: Apache-2.0
//
// Transparent huge pages of 2 MiB, as the host has them set. Any thread; reads /sys.
#ifndef FAULTLINE_HOST_TRANSPARENT_HUGE_H
#define FAULTLINE_HOST_TRANSPARENT_HUGE_H

#include <stdbool.h>

// False where no fault brings a page of 2 MiB, whatever a mapping is eligible for: that may be for
// smaller sizes alone (Linux 6.8; Documentation/admin-guide/mm/transhuge.rst).
bool fl_transparent_huge_by_fault(void);

#endif
