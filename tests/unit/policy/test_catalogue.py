"""The catalogue's data is complete, and its patterns match what vendors name."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import compile_rules

IDS = [
    "docker-hub",
    "docker-hardened-images",
    "ecr",
    "ecr-public",
    "ghcr",
    "google-artifact-registry",
    "gcr",
    "quay",
    "redhat",
    "gitlab",
    "acr",
    "mcr",
    "k8s",
    "ngc",
    "jfrog",
]


def test_ids() -> None:
    assert list(load_catalogue().by_id) == IDS


@pytest.mark.parametrize("registry", IDS)
def test_each_has_an_api_host_and_dates(registry: str) -> None:
    entry = load_catalogue().by_id[registry]
    assert any(host.role.value == "api" and not host.shared for host in entry.required_hosts)
    assert all(host.date.year >= 2026 for host in entry.hosts)
    assert all(host.source for host in entry.hosts)


@pytest.mark.parametrize(
    ("registry", "name", "shared"),
    [
        pytest.param("docker-hub", "registry-1.docker.io", False, id="hub"),
        pytest.param("docker-hub", "docker-images-prod.s3.amazonaws.com", True, id="hub-s3"),
        pytest.param(
            "docker-hub", "docker-images-prod.s3.dualstack.us-east-1.amazonaws.com", True, id="hub-s3-dual"
        ),
        pytest.param("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", False, id="ecr"),
        pytest.param("ecr", "123456789012.dkr-ecr.eu-west-1.on.aws", False, id="ecr-dual"),
        pytest.param(
            "ecr", "prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com", True, id="ecr-bucket"
        ),
        pytest.param("google-artifact-registry", "europe-west1-docker.pkg.dev", False, id="gar"),
        pytest.param("gcr", "mirror.gcr.io", False, id="gcr-mirror"),
        pytest.param("quay", "cdn06.quay.io", False, id="quay"),
        pytest.param("redhat", "cdn01.quay.io", False, id="redhat"),
        pytest.param("acr", "acme.westeurope.data.azurecr.io", False, id="acr-data"),
        pytest.param("acr", "acme.westeurope.geo.azurecr.io", False, id="acr-geo"),
        pytest.param("acr", "abc.blob.core.windows.net", True, id="acr-blobs"),
        pytest.param("mcr", "westeurope.data.mcr.microsoft.com", False, id="mcr-data"),
        pytest.param(
            "k8s",
            "prod-registry-k8s-io-eu-west-1.s3.dualstack.eu-west-1.amazonaws.com",
            True,
            id="k8s-s3",
        ),
    ],
)
def test_allows(registry: str, name: str, shared: bool) -> None:
    policy = parse_policy(f"version: 1\nregistries: [{registry}]\n".encode(), "p.yaml")
    rule = compile_rules(policy, load_catalogue()).match(name)
    assert rule is not None
    assert (rule.origin, rule.shared, rule.ports) == (registry, shared, (443,))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("evil-bucket.s3.amazonaws.com", id="other-bucket"),
        pytest.param("evil.docker-images-prod.s3.dualstack.x.amazonaws.com", id="below-the-bucket"),
        pytest.param("d111111abcdef8.cloudfront.net", id="any-cloudfront"),
        pytest.param("dkr.ecr.eu-west-1.amazonaws.com", id="parent"),
        pytest.param("a.dkr.ecr.eu-west-1.amazonaws.com.evil.example", id="suffix"),
        pytest.param("evilghcr.io", id="prefix"),
        pytest.param("hub.docker.com", id="optional"),
    ],
)
def test_refuses(name: str) -> None:
    policy = parse_policy(f"version: 1\nregistries: [{', '.join(IDS)}]\n".encode(), "p.yaml")
    assert compile_rules(policy, load_catalogue()).match(name) is None


def test_owner_of() -> None:
    assert load_catalogue().owner_of("ghcr.io") == "ghcr"
    assert load_catalogue().owner_of("storage.googleapis.com") is None
