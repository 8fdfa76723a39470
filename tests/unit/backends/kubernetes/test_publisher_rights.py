"""The Secrets that the publisher may read."""

from labrats.backends.kubernetes.publisher_rights import rules_for


def test_only_the_named_secrets_may_be_read() -> None:
    [rule] = rules_for(["app", None, "token", "app"])
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["secrets"], ["app", "token"], ["get"])


def test_without_names_no_secret_may_be_read() -> None:
    assert rules_for([None]) == []
