/* SPDX-License-Identifier: Apache-2.0
 * contents.h - between board.c and contents.c.
 */
#ifndef ORR_RANK_CUDA_SHARE_CONTENTS_H
#define ORR_RANK_CUDA_SHARE_CONTENTS_H

#include "board.h"

/* With its reference; what nobody refers to any more is free. */
void orri_contents_set_view(struct orri_board *b,
                            uint32_t me,
                            uint32_t slot,
                            uint32_t view);
/* References, buckets and what is free, from the views. */
void orri_contents_recount(struct orri_board *b);
/* Somebody left the slot with other bytes than before, which others have too, or nobody. */
void orri_slot_changed(struct orri_board *b, uint32_t slot, bool is_shared);

#endif
