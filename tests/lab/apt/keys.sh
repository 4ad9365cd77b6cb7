# The keys of the lab: one for each repository, and a stranger's.

make_keys() {
  export GNUPGHOME="$work/gnupg"
  mkdir -m 0700 "$GNUPGHOME"
  for who in docker nvidia stranger; do
    gpg --batch --quiet --pinentry-mode loopback --passphrase '' \
      --quick-generate-key "gpunode lab ($who) <$who@lab.gpunode.test>" rsa3072 sign never 2>/dev/null
    gpg --batch --armor --export "$who@lab.gpunode.test" >"$work/$who.asc"
  done
  say "keys made: docker, nvidia, stranger"
}

fingerprint() {
  gpg --batch --with-colons --list-keys "$1@lab.gpunode.test" | awk -F: '$1 == "fpr" { print $10; exit }'
}

# sign FOLDER WHO: Release becomes InRelease and Release.gpg.
sign() {
  rm -f "$1/InRelease" "$1/Release.gpg"
  gpg --batch --quiet --local-user "$2@lab.gpunode.test" --clearsign --output "$1/InRelease" "$1/Release"
  gpg --batch --quiet --local-user "$2@lab.gpunode.test" --armor --detach-sign --output "$1/Release.gpg" "$1/Release"
}
