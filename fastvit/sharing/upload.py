"""One commit to a repository of the Hugging Face Hub, and every failure said in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, errors, get_token
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ..utils.text import one_line
from ..utils.warning import warn
from ..weights.hub_file import SECONDS, within

WAIT = 30.0  # seconds for a response of a hub that is there
SLOWEST = 20_000  # bytes a second of an upload that is waited for
LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


class Commit:
    """A repository that is to receive a commit; it is made, or asked for, by `prepare`.

    Args:
        repo_id: "USER/NAME", or "NAME" of the token's user.
        token: None is the one that is stored or in HF_TOKEN.
        revision: a branch, or None for main.

    Raises:
        ValueError: a name that no repository has.
        PermissionError: there is no token, or one that the hub does not know.
        ConnectionError: HF_HUB_OFFLINE is set, or the hub does not respond.
    """

    def __init__(self, repo_id: str, token: str | None, revision: str | None) -> None:
        self.name, self.revision = repo_id, revision
        self.api = HfApi(endpoint=constants.ENDPOINT, token=token)
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError(f"{repo_id}: nothing is uploaded while HF_HUB_OFFLINE is set: unset it")
        if not (token or get_token()):
            raise PermissionError(f"{repo_id}: there is no token for {constants.ENDPOINT}: {LOGIN}")
        with self._in_one_line():
            validate_repo_id(repo_id)
            within(SECONDS, self.api.whoami)  # a hub that is there says who asks

    def prepare(self, private: bool) -> list[str]:
        """Make the repository and the branch, where they are not there -> the files that they have.

        Raises:
            PermissionError: the token may not do that.
            ConnectionError: the hub cannot be reached, or refuses.
        """
        with self._in_one_line():
            self.name = within(WAIT, lambda: self.api.create_repo(self.name, private=private, exist_ok=True)).repo_id
            if self.revision:
                within(WAIT, lambda: self.api.create_branch(self.name, branch=str(self.revision), exist_ok=True))
            info = self.api.model_info(self.name, revision=self.revision, timeout=WAIT)
        if private and info.private is False:
            warn(f"{self.name}: is there already and stays public; private=True is for new ones")
        return [file.rfilename for file in info.siblings or ()]

    @property
    def address(self) -> str:
        """How the model there is loaded."""
        return f"hf-hub:{self.name}" + (f"@{self.revision}" if self.revision else "")

    def send(self, folder: str, message: str) -> str:
        """All files of `folder` as one commit -> the repository's address.

        Raises:
            PermissionError: the token may not do that.
            ConnectionError: the hub cannot be reached, or refuses.
        """
        given: dict[str, Any] = {
            "repo_id": self.name,
            "folder_path": folder,
            "revision": self.revision,
            "commit_message": message,
        }
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        with self._in_one_line():
            within(WAIT + size / SLOWEST, lambda: self.api.upload_folder(**given))
        return f"{constants.ENDPOINT}/{self.name}" + (f"/tree/{self.revision}" if self.revision else "")

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except errors.HFValidationError as error:
            raise ValueError(f"{self.name!r} is no repository's name, expected USER/NAME: {one_line(error)}") from None
        except Exception as error:  # the hub's, and those of its HTTP library, which changes with its version
            status = getattr(getattr(error, "response", None), "status_code", 0)
            where = f"{self.name}: {constants.ENDPOINT}"
            if status in (401, 403):
                raise PermissionError(f"{where} answered {status}: this token may not write there: {LOGIN}") from error
            if status == 404:
                raise PermissionError(
                    f"{where} answered 404: no such user or organization, or none of yours"
                ) from error
            said = one_line(getattr(error, "server_message", None) or error.__cause__ or error)[:300]
            what = f"answered {status} ({said})" if status else f"could not be reached ({said})"
            raise ConnectionError(f"{where} {what}: try again later, or look at HF_ENDPOINT") from error
