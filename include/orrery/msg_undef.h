/* SPDX-License-Identifier: Apache-2.0
 * msg_undef.h - ends one pass over messages.def.  On purpose without an include guard.
 */
#undef REC_BEGIN
#undef REC_END
#undef MSG_BEGIN
#undef MSG_END
#undef FIELD
#undef RECORD
#undef LIST
