"""What was published against what is there."""

from dav.errors import DavError


def require_count(found, published, where, hint):
    """Raises DavError if `where` holds another number of files than its authors published: a
    benchmark's numbers are comparable over the whole of it alone."""
    if found != published:
        raise DavError(
            f"{where} holds {found} of {published} published: a half-finished download, or another "
            f"edition? {hint}"
        )
