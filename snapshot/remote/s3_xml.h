// SPDX-License-Identifier: Apache-2.0
//
// Reads the XML that S3 servers answer with. Any thread; no state.
#ifndef FAULTLINE_SNAPSHOT_REMOTE_S3_XML_H
#define FAULTLINE_SNAPSHOT_REMOTE_S3_XML_H

#include <stddef.h>

// Calls fn at the end of each element with its path, such as "ListBucketResult/Contents/Key", and
// the text in it. Stops at its first result that is not 0, and returns that. -EBADMSG: it is not
// XML, is nested too deep, or has an element of more than 4 KiB of text; -ENOMEM.
int fl_s3_xml(const char *text, size_t bytes,
              int (*fn)(void *arg, const char *path, const char *value), void *arg);

#endif
