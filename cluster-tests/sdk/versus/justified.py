"""The differences that may be: a pattern of `request | difference`, and why. One that is not met any more fails as well."""

JUSTIFIED: dict[str, str] = {
}
