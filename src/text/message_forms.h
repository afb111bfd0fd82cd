// Messages in the form that a template takes. The same thing is said in several ways: a call's arguments are
// an object or the text of one, a content is a text or a list of parts, instructions are of the system's or
// of the developer's. Most templates were written for one of them and fail on the other, or write something
// else.
#pragma once

#include <vector>

#include "base/result.h"
#include "text/chat_template.h"

namespace rung::text {

struct MessageForms {
  bool object_arguments = false;  // a call's arguments as an object; false: as they are given
  bool text_content = false;      // a content as one text; false: as it is given
  bool system_developer = false;  // role "developer" as "system"
  bool empty_content = false;     // a content of null as ""; false: left out
};

// Found by rendering small conversations in both forms, and for the developer by whether the source has the
// word.
MessageForms FormsOf(const ChatTemplate& chat);

// Arguments that are the text of an object become it; the texts of a list of parts are joined, with a line
// end between; a content of null becomes "". Fails for a part that is no text where the template takes texts.
Result<std::vector<Message>> InForms(std::vector<Message> messages, const MessageForms& forms);

}  // namespace rung::text
