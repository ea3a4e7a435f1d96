// SPDX-License-Identifier: Apache-2.0
#include "engine/link/description.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LEAST = offsetof(struct fl_description, template) };

int fl_description_write(const struct fl_description *description)
{
    int fd = memfd_create("faultline-listener", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (write(fd, description, sizeof(*description)) == (ssize_t)sizeof(*description))
        return fd;
    int error = errno ? -errno : -EIO;
    close(fd);
    return error;
}

int fl_description_read(int fd, struct fl_description *ret_description)
{
    struct fl_description description = {0};
    if (pread(fd, &description, sizeof(description), 0) < (ssize_t)LEAST ||
        description.magic != FL_DESCRIPTION_MAGIC ||
        !memchr(description.image, '\0', sizeof(description.image)) ||
        !memchr(description.path, '\0', sizeof(description.path)))
        return -EINVAL;
    if (description.version != FL_DESCRIPTION_VERSION)
        return -EPROTONOSUPPORT;
    *ret_description = description;
    return 0;
}

bool fl_policy_parse(const char *text, enum fl_policy *ret_policy)
{
    static const char *const name[] = {
        [FL_POLICY_POISON] = "poison", [FL_POLICY_KILL] = "kill", [FL_POLICY_AUTO] = "auto"};
    for (int i = FL_POLICY_POISON; i <= FL_POLICY_AUTO; i++) {
        if (strcmp(text, name[i]) == 0) {
            *ret_policy = (enum fl_policy)i;
            return true;
        }
    }
    return false;
}
