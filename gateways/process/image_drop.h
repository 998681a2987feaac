/* SPDX-License-Identifier: Apache-2.0
 * image_drop.h - images on their way to and from the store lie in one directory, in memory where there is room for that.
 */
#ifndef ORR_IMAGE_DROP_H
#define ORR_IMAGE_DROP_H

#include "process.h"

/* Make the directory, mode 0700, and remove the images that an earlier host left in it: whatever was being done with them has ended
 * with that host, or fails and is done again.  Plain files stay: they are arenas (rank/port/arena.c).  Errors: ORR_EIO, naming the
 * path. */
ORR_NODISCARD enum orr_err orr_images_open(const char *images, struct orr_error *err);

/* Remove the directory with all that is in it: no rank lives any more.  Gone already: ORR_OK.  Errors: ORR_EIO. */
ORR_NODISCARD enum orr_err orr_images_remove(const char *images, struct orr_error *err);

/* Remove one image.  Gone already: ORR_OK.  Errors: ORR_EINVAL dir is not directly in `images`, ORR_EIO. */
ORR_NODISCARD enum orr_err
orr_image_drop(const char *images, struct orr_str dir, struct orr_error *err);

#endif
