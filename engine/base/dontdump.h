// SPDX-License-Identifier: Apache-2.0
//
// Memory for what guests' pages hold: left out of core dumps. A dump of a cache takes about a
// second a GiB, in which no process serves (the kernel keeps the robust mutexes of the dead until
// it is written), and shows guests' secrets to its reader. Any thread.
#ifndef FAULTLINE_BASE_DONTDUMP_H
#define FAULTLINE_BASE_DONTDUMP_H

#include <stddef.h>

// A mapping of whole pages that is there already.
void fl_dontdump(void *pages, size_t bytes);
// `bytes` of private memory, zero and aligned to pages; NULL without memory. For large pieces: each
// may be a mapping of its own.
void *fl_dontdump_map(size_t bytes);
void fl_dontdump_unmap(void *pages, size_t bytes); // NULL is a no-op
// The same from an arena of jemalloc's, not zeroed, for small pieces. Where jemalloc is not the
// allocator (sanitized builds), it is ordinary memory.
void *fl_dontdump_alloc(size_t bytes);
void fl_dontdump_free(void *pages);

#endif
