"""What `--help` says below the options: an example, where files are, and what the exit status means."""

from dataclasses import dataclass
from typing import Final

__all__ = ["MANUAL", "ROOT", "Page", "epilog"]

ROOT: Final = """\
Begin: umec try opens a shell on a site to try things out on; umec up serves one; umec demo shows the chain of trust.

Environment: UMEC_CREDENTIAL names your credential file, UMEC_REGISTRY the registry's URL; on a node, UMEC_AGENT_STATE \
the agent's state folder. NO_COLOR takes the colours away.

Exit status: 0 done; 1 refused, and the code says why; 2 wrong usage. With --json a refusal is one object, too.
"""

DONE: Final = "0 done; 1 refused, and the code says why; 2 wrong usage"
SERVED: Final = "0 when it was told to end; 1 refused or failed, and the code says why; 2 wrong usage"
AGENT: Final = "the --state folder (0700): enrolment and key handles; the keys themselves never leave the TPM"
CREDENTIAL: Final = "the --credential file (0600): `umec up` writes operator.json, `umec client add` all others"
LAYOUT: Final = "the --out folder: an OCI image layout, and umec-build.json, the report that is signed"


@dataclass(frozen=True, slots=True)
class Page:
    """What is said about one command."""

    example: str
    files: str | None = None
    exits: str = DONE
    environment: str | None = None
    """Variables that are no options; the others stand beside their option."""


IMAGE: Final = "10.0.0.1:5443/city/hello"
DIGEST: Final = "sha256:7637…"

MANUAL: Final[dict[str, Page]] = {
    "up": Page(
        "umec up --config /etc/umec/umec.toml --json",
        "the state folder (/var/lib/umec as root, else ~/.local/state/umec): server-ca.pem, operator.json, "
        "SERVICE-audit.pem, and keys and databases by service",
        SERVED,
        "every setting as UMEC_NAME, with two underscores for a table: UMEC_ATTEST__ROUND_SECONDS=10",
    ),
    "try": Page(
        "umec try",
        "everything in a folder that goes with the shell; files in your own folders stay",
        "that of the shell or the command; 1 refused; 2 wrong usage",
        "inside, UMEC_TRY is that folder and UMEC_CREDENTIAL the operator's credential in it",
    ),
    "demo": Page(
        "umec demo --only replayed-evidence",
        "--keep copies logs, databases and evidence; without it nothing stays",
        "0 if every link held and every attack was refused; 1 otherwise; 2 wrong usage",
    ),
    "demo-vm": Page(
        "umec demo-vm --tamper downgrade --keep run",
        "packages and their lock: $UMEC_CACHE (default ~/.cache/umec/nodeimage); --keep copies all others",
        "0 if every link held and every attack was refused; 1 otherwise; 2 wrong usage",
    ),
    "token": Page("umec token --resource https://10.0.0.1:8443/attest/v1 --scope attest:read", CREDENTIAL),
    "netd": Page(
        "umec netd --node pole-17 --socket /run/netd.sock --state /var/lib/umec/netd/pole-17 "
        "--verifier-jwks verifier.jwks.json --verifier-issuer https://10.0.0.1:8443/attest/v1 "
        "--decision-jwks decision.jwks.json --decision-issuer https://10.0.0.1:8443/platform/v1 "
        "--access eth1 --access-address 192.0.2.1/24 --allow-uid 0",
        "the --state folder: what is in force, and the logs of instances; `umec up` starts netd with all of this",
        SERVED,
    ),
    "node ek": Page("umec node ek"),
    "node enroll": Page(
        "umec node enroll --ticket @ticket --ca server-ca.pem --state /var/lib/umec-agent",
        AGENT + "; --ca is server-ca.pem of the site's state folder",
    ),
    "node attest": Page(
        "umec node attest --state /var/lib/umec-agent --save evidence",
        "--save keeps quote.bin, signature.bin, pcrs.json, bootlog.bin: what umec evidence verify reads",
        "0 the evidence is good; 1 refused, or it speaks against the node; 2 wrong usage",
    ),
    "node run": Page("umec node run --state /var/lib/umec-agent --json", AGENT, SERVED),
    "node rotate": Page("umec node rotate --state /var/lib/umec-agent", AGENT),
    "node trust-log": Page("umec node trust-log --state /var/lib/umec-agent --reset", AGENT),
    "node token": Page("umec node token --state /var/lib/umec-agent --resource https://10.0.0.1:5443/", AGENT),
    "node call": Page(
        "umec node call GET https://10.0.0.1:8443/attest/v1/standings/own --state /var/lib/umec-agent",
        AGENT,
        "0 the answer is 2xx; 1 it is another, or the call was refused; 2 wrong usage",
    ),
    "node seal": Page(
        "umec node seal disk --state /var/lib/umec-agent --from disk.key --owner owner.pem --image street-node",
        "sealed/NAME.json in the --state folder: worth nothing to another TPM",
    ),
    "node unseal": Page(
        "umec node unseal disk --state /var/lib/umec-agent --out /run/disk.key",
        "--out is made with mode 0600; --approval is what `umec secret approve` wrote for the image",
    ),
    "node announce-own-reboot": Page("umec node announce-own-reboot --state /var/lib/umec-agent --within 300", AGENT),
    "node ticket": Page(
        "umec node ticket pole-17 --tenant city --image street-node --ek-sha256 5f70bf18… --lifetime 600", CREDENTIAL
    ),
    "node allow": Page(
        "umec node allow pole-17 --tenant city --image street-node --ek-sha256 5f70bf18… --days 90", CREDENTIAL
    ),
    "node disallow": Page("umec node disallow 5f70bf18…", CREDENTIAL),
    "node list": Page("umec node list --behind", CREDENTIAL),
    "node show": Page("umec node show pole-17", CREDENTIAL),
    "node explain": Page("umec node explain pole-17", CREDENTIAL),
    "node approve": Page("umec node approve pole-17 --tenant city --image street-node", CREDENTIAL),
    "node quarantine": Page("umec node quarantine pole-17 --reason 'the box was open'", CREDENTIAL),
    "node readmit": Page("umec node readmit pole-17 --reason 'the lock is new'", CREDENTIAL),
    "node revoke": Page("umec node revoke pole-17 --reason 'scrapped'", CREDENTIAL),
    "node image": Page(
        "umec node image pole-17 10.0.0.1:5443/city/street-node@sha256:7637… --reason 'security updates'", CREDENTIAL
    ),
    "node announce-reboot": Page("umec node announce-reboot pole-17 --within 600 --reason 'kernel update'", CREDENTIAL),
    "node allow-version": Page("umec node allow-version pole-17 --version 1 --reason 'version 2 breaks'", CREDENTIAL),
    "node clear-reset": Page("umec node clear-reset pole-17 --reason 'the seal is whole'", CREDENTIAL),
    "node simulate-boot": Page("umec node simulate-boot --tcti swtpm:port=2321 --image image --log bootlog.bin"),
    "node sample-image": Page("umec node sample-image image"),
    "node software-tpm": Page(
        "umec node software-tpm tpm --json",
        "the folder: the TPM's state, ek-root.pem (for attest.ek_roots) and ek-chain.pem (for --ek-chain)",
        SERVED,
    ),
    "secret set": Page("umec secret set pole-17 disk --from disk.key", CREDENTIAL),
    "secret list": Page("umec secret list pole-17", CREDENTIAL),
    "secret remove": Page("umec secret remove pole-17 disk", CREDENTIAL),
    "secret approve": Page(
        "umec secret approve --image street-node --version 1 --predicted street-node.json --key owner.key "
        "--out street-node.approval",
        "--predicted is what `umec nodeimage predict image --json` printed; --key has mode 0600",
    ),
    "evidence collect": Page(
        "umec evidence collect evidence --state /var/lib/umec-agent --nonce 9f3c…",
        "the judge makes the nonce (openssl rand -hex 32), and gives it to umec evidence verify as well",
        "0 the folder holds evidence of now; 1 refused; 2 wrong usage",
    ),
    "evidence verify": Page(
        "umec evidence verify evidence --ak ak.pub --nonce 9f3c… --reference street-node.dsse --signer signer.pem "
        "--policy default",
        "the folder: quote.bin, signature.bin, pcrs.json, and where there are ak.pub, nonce.bin, bootlog.bin, "
        "userspace.log, ima.bin or ima.txt",
        "0 everything was checked and held; 1 something was missing or refused; 2 wrong usage",
    ),
    "bootlog show": Page(
        "umec bootlog show /sys/kernel/security/tpm0/binary_bios_measurements "
        "--userspace /run/log/systemd/tpm2-measure.log",
        "--pcrs is pcrs.json of an evidence folder; IMA's PCR 10 goes on after the log, and is not compared",
        exits="0 the log is well-formed, and replays to --pcrs; 1 it is not; 2 wrong usage",
    ),
    "image build": Page("umec image build docs/examples/hello --out hello-image --tag 1.0.0", LAYOUT),
    "image push": Page(f"umec image push hello-image {IMAGE}:1.0.0 --credential city-builder.json", CREDENTIAL),
    "image sign": Page(
        f"umec image sign {IMAGE}@{DIGEST} --layout hello-image --credential city-builder.json", CREDENTIAL
    ),
    "image verify": Page(f"umec image verify {IMAGE}@{DIGEST} --identity city-builder", CREDENTIAL),
    "image verify-bundle": Page(
        "umec image verify-bundle sbom.json --bundle sbom.sigstore.json --trusted-root trusted_root.json "
        "--certificate-identity builder@example.com --certificate-oidc-issuer https://10.0.0.1:8443"
    ),
    "image attach": Page(
        f"umec image attach {IMAGE}@{DIGEST} sbom.json --artifact-type application/spdx+json", CREDENTIAL
    ),
    "image tree": Page(f"umec image tree {IMAGE}:1.0.0", CREDENTIAL),
    "image promote": Page(f"umec image promote {IMAGE}@{DIGEST} --stage staging", CREDENTIAL),
    "image deny": Page(f"umec image deny {IMAGE}@{DIGEST} --reason 'CVE-2026-1234'", CREDENTIAL),
    "image allow": Page(f"umec image allow {IMAGE}@{DIGEST}", CREDENTIAL),
    "image denials": Page("umec image denials --registry https://10.0.0.1:5443", CREDENTIAL),
    "image minimum": Page(f"umec image minimum {IMAGE} 1.4.0 --reason 'older ones leak'", CREDENTIAL),
    "image rotate-authority": Page(
        "umec image rotate-authority /var/lib/umec/images/authority --registry https://10.0.0.1:5443"
    ),
    "nodeimage build": Page(
        "umec nodeimage build images/recipes/minimal.toml --out minimal --site-url https://10.0.0.1:8443 "
        "--site-ca server-ca.pem",
        "the --out folder: uki.efi, root.img, disk.img, vars.fd, efivars/, manifest.json, packages.lock, sbom.cdx.json",
        environment="SOURCE_DATE_EPOCH dates everything in the image",
    ),
    "nodeimage keys": Page(
        "umec nodeimage keys secure-boot",
        "PK, KEK and db: .key (0600) and .crt, PEM; with --owner: owner.key (0600) and owner.pem",
    ),
    "nodeimage approve": Page(
        "umec nodeimage approve street-node --key owner.key",
        "the folder: its approval, disk.img and manifest.json are written; --key has mode 0600",
    ),
    "nodeimage boot": Page(
        "umec nodeimage boot minimal --tamper kernel",
        "--keep FOLDER: disk.img, vars.fd and tpm/ of the node, and console.log; without it nothing stays",
        "0 the boot ended, or went on, as documented; 1 it did not, or was refused; 2 wrong usage",
    ),
    "nodeimage predict": Page(
        "umec nodeimage predict image --name street-node --version 2 --key signer.key --out street-node.dsse",
        "the folder: uki.efi, efivars/, firmware.json (or firmware.bin, firmware.version); --key is made if missing",
    ),
    "nodeimage firmware": Page(
        "umec nodeimage firmware bootlog.bin --name 'Lamp 1.4' --out lamps.json",
        'the --out file: {"builds": [{"name", "code_sha256", "pcrs"}]}, for umec nodeimage predict --firmware',
    ),
    "nodeimage sign": Page(
        "umec nodeimage sign draft.json --name street-node --version 3 --key signer.key --grace 7d",
        'the draft: {"image_sha256", "pcrs", "ignored", "models", "runtime", "starts", "owner", "stages"}, as '
        "docs/operating.md has them; --key is made where there is none",
    ),
    "nodeimage import-corim": Page(
        "umec nodeimage import-corim vendor.corim --out draft.json",
        "the CoRIM is unsigned CBOR; what is read of it, and what is refused, is in docs/operating.md",
    ),
    "nodeimage export-corim": Page(
        "umec nodeimage export-corim street-node.dsse --signer signer.pem --out street-node.corim",
        "--signer is the public key of who signed the set, PEM",
    ),
    "nodeimage publish": Page("umec nodeimage publish street-node.dsse --grace 24h", CREDENTIAL),
    "nodeimage versions": Page("umec nodeimage versions street-node", CREDENTIAL),
    "nodeimage push": Page(
        "umec nodeimage push street-node 10.0.0.1:5443/city/street-node:1 --credential city-builder.json", CREDENTIAL
    ),
    "nodeimage fetch": Page(
        f"umec nodeimage fetch 10.0.0.1:5443/city/street-node@{DIGEST} --out street-node --references sets",
        "the --out folder: what was built, without disk.img; the --references folder: the sets, which nobody checked",
    ),
    "nodeimage update": Page(
        f"umec nodeimage update /dev/vda street-node --manifest {DIGEST} --variables /sys/firmware/efi/efivars",
        "the disk as `umec nodeimage build` lays one out: EFI partition, root-a and root-b; FOLDER as fetched",
    ),
    "nodeimage update-status": Page("umec nodeimage update-status /dev/vda"),
    "nodeimage update-settle": Page("umec nodeimage update-settle /dev/vda"),
    "nodeimage update-confirm": Page("umec nodeimage update-confirm /dev/vda"),
    "policy check": Page("umec policy check /etc/umec/policies/admission", "schema.cedarschema and *.cedar"),
    "policy test": Page("umec policy test --default appraisal", "*.test.json beside the policies"),
    "policy sign": Page(
        "umec policy sign /etc/umec/policies/appraisal --version 2 --key policies.key --out appraisal.dsse",
        "--key is made where there is none; the verifier loads the bundle by attest.signed_policies",
    ),
    "policy show": Page("umec policy show --default admission"),
    "policy explain": Page("umec policy explain --default appraisal --decision node.json"),
    "client add": Page(
        "umec client add city-builder --kind builder --tenant city --scope images:push --scope images:pull "
        "--out city-builder.json",
        "--out: the new client's credential (0600), with the private key that is nowhere else",
    ),
    "client remove": Page("umec client remove city-builder", CREDENTIAL),
    "app onboard": Page("umec app onboard docs/examples/hello --tenant city", CREDENTIAL),
    "app instantiate": Page("umec app instantiate hello-1 --tenant city --host pole-17", CREDENTIAL),
    "app terminate": Page("umec app terminate 3e1c…", CREDENTIAL),
    "app list": Page("umec app list --json", CREDENTIAL),
    "app show": Page("umec app show 3e1c…", CREDENTIAL),
    "app log": Page("umec app log 3e1c… --lines 20", CREDENTIAL),
    "tenant add": Page("umec tenant add city --address 198.51.100.80/32 --domain city.mec.internal", CREDENTIAL),
    "tenant list": Page("umec tenant list", CREDENTIAL),
    "host add": Page("umec host add pole-17 --netd /var/lib/umec/netd/pole-17/netd.sock", CREDENTIAL),
    "host relay": Page(
        "umec host relay --site https://10.0.0.1:8443 --agent /var/lib/umec-agent --netd /run/umec-host/netd.sock "
        "--images /var/lib/umec-images",
        "--agent: the socket of the running agent; --images: fetched images, which netd checks again",
        exits=SERVED,
    ),
    "host list": Page("umec host list", CREDENTIAL),
    "service list": Page("umec service list --tenant city", CREDENTIAL),
    "service rules": Page("umec service rules --json", CREDENTIAL),
    "audit fetch": Page("umec audit fetch attest --out attest.json", CREDENTIAL),
    "audit verify": Page(
        "umec audit verify attest.json --key attest-audit.pem --previous attest-of-last-week.json",
        "--key is SERVICE-audit.pem of the site's state folder: keep a copy elsewhere",
    ),
}
"""A page for each command; a test holds that none is missing and that every example is read by its command."""


def epilog(command: str) -> str | None:
    """Return what stands below the options of a command, a line for each part; None for one without a page."""
    page = MANUAL.get(command)
    if page is None:
        return None
    parts = [f"Example: {page.example}", f"Exit status: {page.exits}."]
    if page.environment is not None:
        parts.insert(1, f"Environment: {page.environment}.")
    if page.files is not None:
        parts.insert(1, f"Files: {page.files}.")
    return "\n\n".join(parts)
