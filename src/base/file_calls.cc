#include "base/file_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

namespace rung {
namespace {

int Open(const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); }

int Exchange(const char* a, const char* b) { return ::renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE); }

constexpr FileCalls kSystem = {Open,     ::pwrite, ::ftruncate, ::fsync, ::rename,
                               Exchange, ::unlink, ::rmdir,     ::mkdir, ::sleep};
const FileCalls* in_use = &kSystem;

}  // namespace

const FileCalls& FileCalls::System() { return kSystem; }

const FileCalls& Files() { return *in_use; }

FileCallsScope::FileCallsScope(const FileCalls& calls) : before_(in_use) { in_use = &calls; }

FileCallsScope::~FileCallsScope() { in_use = before_; }

}  // namespace rung
