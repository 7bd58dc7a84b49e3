"""API keys: issuing one, whose secret is shown once, and revoking it."""

import re
import secrets
import string
from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.db.models.functions import Now

from billing_site.http.problems import DomainError, FieldError, Invalid
from subscriptions.models import ApiKey
from subscriptions.selectors.keys import PREFIX_LENGTH, digest_of, forget_keys
from subscriptions.services import audit, uniqueness

_PREFIX_RANDOM = 8
_SECRET_BYTES = 32  # 43 characters of base64url
# What a Bearer header can carry (RFC 6750), in a length that is neither guessed nor a paste of something else.
_FIXED_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{20,200}", re.ASCII)


class KeyNotFound(DomainError):
    """No API key has this prefix."""

    status = 404
    code = "not_found"
    title = "There is no such key"


@transaction.atomic
def issue_key(
    *,
    name: str,
    scopes: Iterable[str],
    actor: str,
    expires_at: datetime | None = None,
    secret: str | None = None,
) -> tuple[ApiKey, str]:
    """
    Make a key and return it with its text, `tb_<8 characters>_<43 characters>`, which is stored nowhere and cannot be shown again.

    `secret` fixes the whole text, for an installation that is set up unattended; its first 11 characters become the public prefix, so it
    should be random throughout. Raises Invalid (422) for no or unknown scopes or an unfit `secret`, AlreadyExists (409) for a prefix
    that is taken.
    """
    wanted = list(dict.fromkeys(scopes))
    faults = [
        FieldError("scopes", "unknown_choice", f"{scope} is no scope; there are {', '.join(ApiKey.Scope.values)}")
        for scope in wanted
        if scope not in ApiKey.Scope.values
    ]
    if not wanted:
        faults.append(FieldError("scopes", "required", "a key without a scope opens nothing"))
    if secret is not None and _FIXED_KEY.fullmatch(secret) is None:
        faults.append(FieldError("secret", "invalid", "must be 20 to 200 of the characters A-Z a-z 0-9 . _ ~ + / = -"))
    if faults:
        raise Invalid("The key cannot be issued.", errors=faults)
    token = secret if secret is not None else _new_token()
    prefix = token[:PREFIX_LENGTH]
    key = ApiKey(name=name, prefix=prefix, digest=digest_of(token), scopes=wanted, expires_at=expires_at)
    uniqueness.insert(key, code=prefix)
    after = {"name": name, "prefix": prefix, "scopes": wanted, "expires_at": expires_at}
    audit.record(actor=actor, action="issue", instance=key, after=after)
    return key, token


@transaction.atomic
def revoke_key(*, key: ApiKey, actor: str, reason: str = "") -> ApiKey:
    """Refuse the key from now on: in this process once the transaction commits, in every other within a second. Again: no effect."""
    locked = ApiKey.objects.select_for_update(no_key=True, of=("self",)).filter(pk=key.pk).first()
    if locked is None:
        raise KeyNotFound("There is no such key.")
    if locked.revoked_at is None:
        ApiKey.objects.filter(pk=locked.pk).update(revoked_at=Now())
        locked.refresh_from_db(fields=["revoked_at"])
        after = {"revoked_at": locked.revoked_at}
        audit.record(
            actor=actor, action="revoke", instance=locked, before={"revoked_at": None}, after=after, reason=reason
        )
        transaction.on_commit(forget_keys)
    return locked


def _new_token() -> str:
    letters = string.ascii_lowercase + string.digits
    public = "".join(secrets.choice(letters) for _ in range(_PREFIX_RANDOM))
    return f"tb_{public}_{secrets.token_urlsafe(_SECRET_BYTES)}"
