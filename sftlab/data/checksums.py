"""Checksums of payment cards and bank accounts: what tells them from other digits."""

import re

IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI",  # codespell:ignore fo
        20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Characters of an IBAN by country, from SWIFT's IBAN registry (ISO 13616)."""


def luhn(number: str) -> bool:
    """Whether a card number's last digit is its checksum (Luhn, ISO/IEC 7812).

    Every second digit from the right is doubled, 9 taken off where that gives more; the sum of
    all digits is a multiple of 10. Any one digit changed breaks it.
    """
    digits = [int(digit) for digit in re.sub(r"\D", "", number)]
    doubled = [2 * d - 9 * (d > 4) for d in digits[-2::-2]]
    return bool(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def mod97(iban: str) -> bool:
    """Whether an IBAN's two check digits are right (ISO 7064, MOD 97-10).

    With the first four characters moved to the end, and A to Z read as 10 to 35, the number
    leaves 1 when divided by 97. Any one digit changed breaks it.
    """
    plain = re.sub(r"[\s-]", "", iban).upper()
    moved = plain[4:] + plain[:4]
    return moved.isalnum() and int("".join(str(int(c, 36)) for c in moved)) % 97 == 1
