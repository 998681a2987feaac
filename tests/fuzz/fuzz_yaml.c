/* SPDX-License-Identifier: Apache-2.0
 * fuzz_yaml.c - any bytes as a host configuration: an error or a config, never a crash,
 * never memory that stays.
 */
#include "orrery/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct orr_host_config config;
    struct orr_error err;
    if (orr_config_parse("fuzz.yaml", (const char *)data, len, &config, &err) == ORR_OK)
        orr_config_free(&config);
    return 0;
}
