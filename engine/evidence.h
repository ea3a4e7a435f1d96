// SPDX-License-Identifier: Apache-2.0
//
// Whether a VM's memory was made from an image, with this part of it at that place: pages that the
// VM has already got are compared with the image's. A guest changes some of them; of none being the
// same the image or the layout is to blame. Changes nothing in the VM. Blocks on storage; any
// thread.
#ifndef FAULTLINE_ENGINE_EVIDENCE_H
#define FAULTLINE_ENGINE_EVIDENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/region.h"
#include "snapshot/read.h"

struct fl_evidence {
    uint64_t compared; // pages of 4 KiB, not zero in the image and present in the VM
    uint64_t same;     // of those, the ones that are byte for byte as in the image
};

// Looks at some thousand pages, evenly spread. -EPERM without the right to trace the process,
// -ESRCH, -ENOMEM; errors of reading the image.
int fl_evidence(pid_t pid, const struct fl_layout *layout, const struct fl_image *image,
                struct fl_evidence *ret_evidence);

// False if it speaks against the layout: enough was compared, and next to nothing is the same
// (duplicates are, by chance).
bool fl_evidence_supports(const struct fl_evidence *evidence);

#endif
