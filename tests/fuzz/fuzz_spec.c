/* SPDX-License-Identifier: Apache-2.0
 * fuzz_spec.c - any bytes as a job spec.  What is accepted must survive the wire.
 */
#include "orrery/job_spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t wire[ORR_SPEC_BYTES_MAX];
    const struct orr_msg_desc *desc = orr_msg_desc_job_spec();
    struct orr_job_spec spec;
    struct orr_error err;
    size_t wire_len, size, taken;
    if (orr_job_spec_parse("fuzz.yaml", (const char *)data, len, &spec, &err) != ORR_OK)
        return 0;
    if (orr_job_spec_finish(&spec, "/", &err) == ORR_OK) {
        ORR_ASSERT(orr_msg_encode(desc, &spec.msg, wire, sizeof wire, &wire_len) ==
                   ORR_OK);
        ORR_ASSERT(orr_msg_decode_size(desc, wire, wire_len, &size, &taken) == ORR_OK);
        ORR_ASSERT(taken == wire_len);
    }
    orr_job_spec_free(&spec);
    return 0;
}
