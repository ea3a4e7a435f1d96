// SPDX-License-Identifier: Apache-2.0
#include "snapshot/offer_left.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/offer_head.h"
#include "snapshot/offer_table.h"

enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK };

static bool table_is_left(int images_fd, const char *file)
{
    FL_AUTO_CLOSE int fd = openat(images_fd, file, OPEN_FLAGS);
    return fd < 0 ? errno == ENOENT : !fl_offer_table_alive(fd);
}

// That of a head which is not known: of a newer version, after a downgrade (format.h says what
// every version has), or that of a crash of the system, whose table is gone or has no lock.
static bool unknown_is_left(int images_fd, int fd, char ret_table[FL_OFFER_TABLE_NAME_BYTES])
{
    uint64_t id;
    int r = fl_pread_full(fd, &id, sizeof(id), offsetof(struct fl_disk_offer_head, id));
    if (r < 0)
        return r == -EBADMSG;
    fl_offer_table_name(id, ret_table);
    return table_is_left(images_fd, ret_table);
}

static bool head_is_left(int images_fd, const char *file, char ret_table[FL_OFFER_TABLE_NAME_BYTES])
{
    struct fl_disk_offer_head head;
    ret_table[0] = '\0';
    FL_AUTO_CLOSE int fd = openat(images_fd, file, OPEN_FLAGS);
    if (fd < 0)
        return false;
    int r = fl_offer_head_read(fd, NULL, &head, NULL);
    if (r == -EPROTONOSUPPORT || r == -EBADMSG)
        return unknown_is_left(images_fd, fd, ret_table);
    if (r < 0)
        return false;
    fl_offer_table_name(head.id, ret_table);
    return table_is_left(images_fd, ret_table);
}

bool fl_offer_is_left(int images_fd, const char *file)
{
    char name[FL_NAME_MAX + 1];
    char table[FL_OFFER_TABLE_NAME_BYTES];
    uint64_t id;
    if (fl_parse_file_name(file, FL_OFFER_SUFFIX, name) == 0)
        return head_is_left(images_fd, file, table);
    return fl_offer_table_parse_name(file, &id) == 0 && table_is_left(images_fd, file);
}

bool fl_offer_remove_left(int images_fd, const char *file)
{
    char name[FL_NAME_MAX + 1];
    char table[FL_OFFER_TABLE_NAME_BYTES] = "";
    uint64_t id;
    bool head = fl_parse_file_name(file, FL_OFFER_SUFFIX, name) == 0;
    if (head ? !head_is_left(images_fd, file, table)
             : fl_offer_table_parse_name(file, &id) < 0 || !table_is_left(images_fd, file))
        return false;
    unlinkat(images_fd, file, 0);
    if (table[0] != '\0')
        unlinkat(images_fd, table, 0);
    return true;
}
