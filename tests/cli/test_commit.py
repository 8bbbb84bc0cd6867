from __future__ import annotations

import subprocess

from torchdl.cli.commit import commit


def git(folder, *arguments):
    author = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    return subprocess.run(["git", *author, "-C", str(folder), *arguments], check=True, capture_output=True, text=True)


def test_a_clone_has_a_commit_and_says_whether_its_code_has_changed(tmp_path):
    assert commit(tmp_path) == ""
    git(tmp_path, "init", "-q")
    (tmp_path / "torchdl").mkdir()
    code = tmp_path / "torchdl" / "x.py"
    code.write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    first = git(tmp_path, "rev-parse", "HEAD").stdout
    assert len(commit(tmp_path)) == 10
    assert first.startswith(commit(tmp_path))
    (tmp_path / "notes.txt").write_text("no code")
    assert first.startswith(commit(tmp_path))
    code.write_text("2")
    assert commit(tmp_path) == f"{first[:10]} with changes"
    assert commit(tmp_path / "torchdl") == ""  # a package that lies within another project's clone
