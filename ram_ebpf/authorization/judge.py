"""What the policy says of a request to Docker's API, in the organisation's own words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from ram_ebpf.authorization.messages import ApiRequest
from ram_ebpf.authorization.uses import UnjudgedError, Use, uses_of
from ram_ebpf.oci.reference import Registry
from ram_ebpf.policy.choices import Action, Mode
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.policy.ruleset import AddressRule, NameRule, RuleSet
from ram_ebpf.policy.words import alternatives

_PORTS = (443, 80)
"""Where an engine connects when no port is written: the second for registries that it calls insecure."""
_DOINGS = {Action.PULL: "Access to", Action.PUSH: "Pushing to", Action.LOGIN: "Logging in to"}
_SHOWN_TARGET = 200


class RequestReason(str, Enum):
    """Why a request is refused; docs/reasons.md has a paragraph on each."""

    IMAGE = "denied-image"
    ACTION = "denied-action"
    REQUEST = "denied-request"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused."""

    reason: RequestReason
    explanation: str
    message: str
    """For who has made the request."""
    use: Use | None = None
    rule: NameRule | AddressRule | None = None
    """The one that decided, where there is one."""


def judge(request: ApiRequest, rules: RuleSet, policy: PolicyLike) -> Refusal | None:
    """None: nothing is refused. `rules`: those of the scope where the engine is. In any mode."""
    try:
        _, uses = uses_of(request)
    except UnjudgedError as error:
        text = (
            f"This request is blocked by {_whose(policy)} registry policy, as it cannot be judged: {error}."
        )
        return Refusal(RequestReason.REQUEST, str(error), _with_contact(text, policy))
    for use in uses:
        refusal = _judge_use(use, rules, policy)
        if refusal is not None:
            return refusal
    return None


def _judge_use(use: Use, rules: RuleSet, policy: PolicyLike) -> Refusal | None:
    if use.registry is None:
        if _any_rule_allows(use.action, rules):  # where it is then asked is the kernel's to judge
            return None
        where, rule = "registries", None
        reason, explanation = RequestReason.ACTION, f"no rule allows {use.action.value}"
    else:
        where = str(use.registry)
        found = _deciding(use.registry, rules)
        if any(use.action in candidate.actions for candidate in found.allowing):
            return None
        rule = found.rule
        reason, explanation = _why(use, found)
    doing = _DOINGS[use.action if reason is RequestReason.ACTION else Action.PULL]
    text = (
        f"{doing} {where} is blocked by {_whose(policy)} registry policy (rule: {_rule_text(rule, reason)})."
    )
    return Refusal(reason, explanation, _with_contact(text, policy), use, rule)


@dataclass(frozen=True, slots=True)
class _Found:
    rule: NameRule | AddressRule | None
    allowing: tuple[NameRule | AddressRule, ...] = ()


def _deciding(registry: Registry, rules: RuleSet) -> _Found:
    ports = _PORTS if registry.port is None else (registry.port,)
    address = registry.address
    if address is not None:
        covering = [rule for rule in rules.addresses if address in rule.network]
        allowing = tuple(rule for rule in covering if not set(ports).isdisjoint(rule.ports))
        return _Found(next(iter((*allowing, *covering)), None), allowing)
    rule = rules.match(registry.contact)
    if rule is None or rule.deny or set(ports).isdisjoint(rule.ports):
        return _Found(rule)
    return _Found(rule, (rule,))


def _why(use: Use, found: _Found) -> tuple[RequestReason, str]:
    registry, rule = use.registry, found.rule
    if rule is None:
        return RequestReason.IMAGE, f"{registry} is not in the policy"
    if isinstance(rule, NameRule) and rule.deny:
        return RequestReason.IMAGE, f"{registry} is denied by {rule}"
    if rule.proxy:
        return RequestReason.IMAGE, f"{registry} is a proxy, by {rule}"
    if not found.allowing:
        ports = alternatives(map(str, rule.ports))
        return RequestReason.IMAGE, f"{registry} is allowed by {rule} on port {ports} alone"
    allowed = alternatives(action.value for action in rule.actions)
    return RequestReason.ACTION, f"{registry} is allowed by {rule} for {allowed} alone"


def _rule_text(rule: NameRule | AddressRule | None, reason: RequestReason) -> str:
    if rule is None:
        return "none"
    if reason is RequestReason.ACTION:
        return f"{rule}, for {alternatives(action.value for action in rule.actions)} alone"
    return str(rule)


def _any_rule_allows(action: Action, rules: RuleSet) -> bool:
    if any(action in rule.actions for rule in rules.addresses):
        return True
    return any(action in rule.actions for rule in rules.names if not rule.deny)


def _whose(policy: PolicyLike) -> str:
    return "this host's" if policy.organization is None else f"{policy.organization}'s"


def _with_contact(text: str, policy: PolicyLike) -> str:
    return text if policy.message is None else f"{text} {policy.message}"


def record_of(request: ApiRequest, refusal: Refusal, policy: PolicyLike, scope: str | None) -> dict[str, Any]:
    """The line of the log. Without the query, which may hold build arguments."""
    use = refusal.use
    enforcing = policy.mode is Mode.ENFORCE
    record: dict[str, Any] = {
        "event": "denied" if enforcing else "would-deny",
        "verdict": "deny" if enforcing else "would-deny",
        "reason": refusal.reason.value,
        "image": use.image or None if use is not None else None,
        "registry": str(use.registry) if use is not None and use.registry is not None else None,
        "action": use.action.value if use is not None else None,
        "user": request.user,
        "method": request.method[:_SHOWN_TARGET],
        "path": request.target.partition("?")[0][:_SHOWN_TARGET],
        "scope": scope,
        "rule": str(refusal.rule) if refusal.rule is not None else None,
        "explanation": refusal.explanation,
        "message": policy.message,
    }
    return {key: value for key, value in record.items() if value is not None}
